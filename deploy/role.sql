-- A role for fubd that can do what fubd does and nothing else. Run it once, as the owner of the database (on Supabase: in the SQL editor),
-- before the first start, with a password of your own. On Supabase's pooler its user name is fubd_daemon.<project-ref>.

CREATE ROLE fubd_daemon LOGIN PASSWORD 'choose-a-long-password' CONNECTION LIMIT 20;

-- So that you, who run this, still see and own what it owns.
GRANT fubd_daemon TO CURRENT_USER;

-- It makes the schema fubd, and in public the table stage_changes with its views. It may read and write nothing that others made.
DO $$
BEGIN
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO fubd_daemon', current_database());
END
$$;
GRANT USAGE, CREATE ON SCHEMA public TO fubd_daemon;

-- Where stage_changes exists already: to adopt it, the role must own it, and older views that bear the names of fubd's. The former owner,
-- being a member of the role, keeps every right, so all other views and the older scripts go on as before.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'stage_changes', 'source_health', 'rapid_transitions', 'stage_durations', 'stage_changes_daily', 'current_stages'
    ]
    LOOP
        IF to_regclass('public.' || name) IS NOT NULL THEN
            EXECUTE format('ALTER TABLE public.%I OWNER TO fubd_daemon', name);
        END IF;
    END LOOP;
END
$$;
