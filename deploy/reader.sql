-- Creates a role for Grafana and reports that reads stage_changes and its views, and nothing else. Run it after fubd's first start, as the
-- owner of fubd's tables or a member of their owner (on Supabase: in the SQL editor). Run it again after an update that changed a view.
--
-- Nobody can log in with it until it has a password of yours: ALTER ROLE fubd_reader LOGIN PASSWORD '...';
--
-- Views have their caller's rights, and each of fubd's tables has row level security. So the role may read only the columns that the views
-- use: no names, no evidence (raw_payload), no bodies of deliveries.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fubd_reader') THEN
        CREATE ROLE fubd_reader NOLOGIN CONNECTION LIMIT 5;
    END IF;
END
$$;
ALTER ROLE fubd_reader SET default_transaction_read_only = on;
ALTER ROLE fubd_reader SET statement_timeout = '30s';

GRANT USAGE ON SCHEMA public, fubd TO fubd_reader;
GRANT EXECUTE
    ON FUNCTION fubd.instant(timestamptz), fubd.instant(timestamp), fubd.source_of(text), fubd.is_stage(text)
    TO fubd_reader;
GRANT SELECT
    ON public.source_health, public.rapid_transitions, public.stage_durations, public.stage_changes_daily, public.current_stages
    TO fubd_reader;

GRANT SELECT (
    id, person_id, stage_from, stage_to, changed_at, changed_after, received_at, source, confirmed_by, confirmed_at,
    assigned_user_id, assigned_user_name, lead_source_tag
) ON public.stage_changes TO fubd_reader;
GRANT SELECT (id, received_at) ON fubd.delivery TO fubd_reader;
GRANT SELECT (name, value) ON fubd.setting TO fubd_reader;
GRANT SELECT (name) ON fubd.time_zone TO fubd_reader;
GRANT SELECT (id, mode) ON fubd.mode_change TO fubd_reader;
GRANT SELECT (kind, outcome, finished_at) ON fubd.poll_run TO fubd_reader;
GRANT SELECT (id, stage, updated, verified_at, gone_at) ON fubd.person TO fubd_reader;
GRANT SELECT (person_id, seq, row_id) ON fubd.claim TO fubd_reader;

DO $$
DECLARE
    seen regclass;
BEGIN
    FOREACH seen IN ARRAY ARRAY[
        'public.stage_changes', 'fubd.delivery', 'fubd.setting', 'fubd.time_zone', 'fubd.mode_change', 'fubd.poll_run', 'fubd.person', 'fubd.claim'
    ]::regclass[]
    LOOP
        EXECUTE format('DROP POLICY IF EXISTS fubd_reader_reads ON %s', seen);
        EXECUTE format('CREATE POLICY fubd_reader_reads ON %s FOR SELECT TO fubd_reader USING (true)', seen);
    END LOOP;
END
$$;
