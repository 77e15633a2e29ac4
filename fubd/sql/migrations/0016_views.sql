-- The views in the office's time zone, each by index where it is asked for a person or a time, and a comment on everything in `public`.

CREATE TABLE fubd.time_zone (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    name text    NOT NULL
);
INSERT INTO fubd.time_zone (name) VALUES ('UTC');
COMMENT ON TABLE fubd.time_zone IS 'FUBD_TIMEZONE, for the views. One row.';
COMMENT ON COLUMN fubd.time_zone.name IS 'IANA name of the office''s time zone.';

-- The latest change of each source is found here, however long ago it was.
CREATE INDEX IF NOT EXISTS fubd_stage_changes_source ON public.stage_changes (source, changed_at);
-- `current_stages` shows the id as text, and is asked for it as text.
CREATE INDEX person_text_id ON fubd.person ((id::text));

-- In failover webhooks are known to fail, however recently one was heard.
CREATE OR REPLACE VIEW public.source_health AS
WITH RECURSIVE written (source) AS (
    -- The few values of the column, each by one step in the index.
    (SELECT c.source::text FROM public.stage_changes c WHERE c.source IS NOT NULL ORDER BY c.source LIMIT 1)
    UNION ALL
    SELECT (SELECT c.source::text FROM public.stage_changes c WHERE c.source > w.source ORDER BY c.source LIMIT 1)
    FROM written w WHERE w.source IS NOT NULL
), latest AS (
    SELECT fubd.source_of(w.source) AS source, max(n.changed_at) AS changed_at
    FROM written w
    CROSS JOIN LATERAL (
        SELECT fubd.instant(c.changed_at) AS changed_at FROM public.stage_changes c
        WHERE c.source = w.source AND c.changed_at < '9000-01-01' ORDER BY c.changed_at DESC LIMIT 1
    ) n
    GROUP BY 1
), without_source AS (
    SELECT fubd.instant(c.changed_at) AS changed_at FROM public.stage_changes c
    WHERE c.source IS NULL AND c.changed_at < '9000-01-01' ORDER BY c.changed_at DESC LIMIT 1
), today AS (
    SELECT fubd.source_of(c.source) AS source, count(*) AS records
    FROM public.stage_changes c, (SELECT date_trunc('day', now() AT TIME ZONE z.name) AT TIME ZONE z.name AS began FROM fubd.time_zone z) d
    -- The first condition is for the index of an older table, whose instants have no zone.
    WHERE c.received_at >= d.began AT TIME ZONE 'UTC' - interval '1 day' AND fubd.instant(c.received_at) >= d.began
        AND c.received_at < '9000-01-01'
    GROUP BY 1
), heard AS (
    SELECT
        'webhook' AS source,
        (SELECT d.received_at FROM fubd.delivery d ORDER BY d.id DESC LIMIT 1) AS last_heard,
        (SELECT s.value FROM fubd.setting s WHERE s.name = 'webhook_stale_after_seconds') AS stale_after,
        coalesce((SELECT m.mode = 'failover' FROM fubd.mode_change m ORDER BY m.id DESC LIMIT 1), false) AS failing,
        'STALE - Check webhook server' AS stale
    UNION ALL
    SELECT
        'polling',
        (SELECT r.finished_at FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub' ORDER BY r.finished_at DESC LIMIT 1),
        (SELECT s.value FROM fubd.setting s WHERE s.name = 'poll_stale_after_seconds'),
        false,
        'STALE - Check polling'
)
SELECT
    h.source,
    coalesce((SELECT t.records FROM today t WHERE t.source = h.source), 0) AS records_today,
    greatest(
        (SELECT l.changed_at FROM latest l WHERE l.source = h.source),
        (SELECT w.changed_at FROM without_source w WHERE h.source = fubd.source_of(NULL))
    ) AS latest_change,
    CASE WHEN h.last_heard >= now() - make_interval(secs => h.stale_after) AND NOT h.failing THEN 'HEALTHY' ELSE h.stale END AS status,
    h.last_heard
FROM heard h;

-- The next row is looked up for each row, so a time or a person bounds what is read.
CREATE OR REPLACE VIEW public.stage_durations AS
SELECT
    c.id, c.person_id, c.stage_to AS stage,
    fubd.instant(c.changed_at) AS entered_at,
    n.left_at,
    n.next_stage,
    coalesce(n.left_at, now()) - fubd.instant(c.changed_at) AS duration
FROM public.stage_changes c
LEFT JOIN LATERAL (
    -- A view's column keeps its type, which has no length here; taken out of an array, the older table's column has none either.
    SELECT fubd.instant(s.changed_at) AS left_at, (array_remove(ARRAY[s.stage_to], NULL))[1] AS next_stage
    FROM public.stage_changes s
    WHERE s.person_id = c.person_id AND s.changed_at >= c.changed_at AND (s.changed_at, s.id) > (c.changed_at, c.id)
        AND s.changed_at < '9000-01-01'
    ORDER BY s.changed_at, s.id
    LIMIT 1
) n ON true
WHERE c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01';

-- Each day is looked up by its own bounds, so a bound on `day` bounds what is read, and a day of 23 or 25 hours is a day.
CREATE OR REPLACE VIEW public.stage_changes_daily AS
SELECT d.midnight::date AS day, n.source, n.stage, n.changes
FROM generate_series(
    (
        SELECT date_trunc('day', fubd.instant(c.changed_at) AT TIME ZONE (SELECT z.name FROM fubd.time_zone z)) FROM public.stage_changes c
        WHERE c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01' ORDER BY c.changed_at LIMIT 1
    ),
    (
        SELECT fubd.instant(c.changed_at) AT TIME ZONE (SELECT z.name FROM fubd.time_zone z) FROM public.stage_changes c
        WHERE c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01' ORDER BY c.changed_at DESC LIMIT 1
    ),
    interval '1 day'
) AS d (midnight)
CROSS JOIN LATERAL (
    SELECT fubd.source_of(c.source) AS source, c.stage_to AS stage, count(*) AS changes
    FROM public.stage_changes c
    WHERE fubd.instant(c.changed_at) >= d.midnight AT TIME ZONE (SELECT z.name FROM fubd.time_zone z)
        AND fubd.instant(c.changed_at) < (d.midnight + interval '1 day') AT TIME ZONE (SELECT z.name FROM fubd.time_zone z)
        -- For the index of an older table, whose instants have no zone.
        AND c.changed_at > d.midnight - interval '2 days' AND c.changed_at < d.midnight + interval '3 days'
    GROUP BY 1, 2
) n;

COMMENT ON VIEW public.source_health IS 'One row for each source, webhook and polling: how it does now.';
COMMENT ON COLUMN public.source_health.source IS 'webhook or polling.';
COMMENT ON COLUMN public.source_health.records_today IS 'Rows that this source saw first, received since midnight of FUBD_TIMEZONE.';
COMMENT ON COLUMN public.source_health.latest_change IS 'When the latest change that this source saw first happened.';
COMMENT ON COLUMN public.source_health.status IS
    'HEALTHY, STALE - Check webhook server (silent for too long, or known to fail), or STALE - Check polling. The same as in /health.';
COMMENT ON COLUMN public.source_health.last_heard IS 'The last verified webhook, or the end of the last complete poll.';

COMMENT ON VIEW public.stage_durations IS
    'How long each person stayed in each stage. Fast for a person or a range of entered_at; without either it looks up every row.';
COMMENT ON COLUMN public.stage_durations.id IS 'The id of the row of stage_changes.';
COMMENT ON COLUMN public.stage_durations.person_id IS 'Follow Up Boss''s id of the person.';
COMMENT ON COLUMN public.stage_durations.stage IS 'The stage that was entered.';
COMMENT ON COLUMN public.stage_durations.entered_at IS 'When it was entered.';
COMMENT ON COLUMN public.stage_durations.left_at IS 'When the next stage was entered; null while the person is still there.';
COMMENT ON COLUMN public.stage_durations.next_stage IS 'The next stage; null while the person is still there.';
COMMENT ON COLUMN public.stage_durations.duration IS 'The time in the stage, up to now while the person is still there.';

COMMENT ON VIEW public.rapid_transitions IS 'Stages that were left again within 5 minutes.';
COMMENT ON COLUMN public.rapid_transitions.id IS 'The id of the row of stage_changes that entered the stage.';
COMMENT ON COLUMN public.rapid_transitions.person_id IS 'Follow Up Boss''s id of the person.';
COMMENT ON COLUMN public.rapid_transitions.stage IS 'The stage that was entered and left.';
COMMENT ON COLUMN public.rapid_transitions.next_stage IS 'The stage that followed.';
COMMENT ON COLUMN public.rapid_transitions.entered_at IS 'When the stage was entered.';
COMMENT ON COLUMN public.rapid_transitions.left_at IS 'When it was left.';
COMMENT ON COLUMN public.rapid_transitions.duration IS 'The time between, at most 5 minutes.';

COMMENT ON VIEW public.stage_changes_daily IS 'How many changes entered each stage on each day of FUBD_TIMEZONE, by source. Fast for a range of days.';
COMMENT ON COLUMN public.stage_changes_daily.day IS 'The day in the time zone FUBD_TIMEZONE.';
COMMENT ON COLUMN public.stage_changes_daily.source IS 'Who saw the changes first: webhook or polling.';
COMMENT ON COLUMN public.stage_changes_daily.stage IS 'The stage that was entered.';
COMMENT ON COLUMN public.stage_changes_daily.changes IS 'How many changes.';

COMMENT ON VIEW public.current_stages IS 'Where each person stands now. Fast for a person.';
COMMENT ON COLUMN public.current_stages.person_id IS 'Follow Up Boss''s id of the person.';
COMMENT ON COLUMN public.current_stages.stage IS 'The stage in which the person is.';
COMMENT ON COLUMN public.current_stages.since IS 'Since when, as far as a row of stage_changes says it.';
COMMENT ON COLUMN public.current_stages.verified_at IS 'When a read of the person last confirmed it (Follow Up Boss''s clock).';
COMMENT ON COLUMN public.current_stages.gone_at IS 'When Follow Up Boss confirmed that the person was deleted; null for everybody else.';

-- Of an older table only the columns that fubd added: the others are the owner's, and undoing an adoption leaves them as they were.
DO $$
DECLARE
    described record;
BEGIN
    FOR described IN
        SELECT a.attname AS name, d.meaning
        FROM (VALUES
            ('id', 'Stable: a correction updates the row.'),
            ('person_id', 'Follow Up Boss''s id of the person.'),
            ('first_name', 'First name; may arrive a moment after the row.'),
            ('last_name', 'Last name; may arrive a moment after the row.'),
            ('stage_from', 'The stage before, by this table''s own order; null when nothing is known before.'),
            ('stage_to', 'The stage that the person entered.'),
            ('changed_at', 'When it happened, by Follow Up Boss; for a change seen only by polling, the latest instant it can have been.'),
            ('changed_after', 'Null where changed_at is exact; else the earliest instant it can have been.'),
            ('received_at', 'When fubd first learned of it.'),
            ('source', 'Who saw it first: webhook or polling.'),
            ('confirmed_by', 'The other source, once it has seen the change too.'),
            ('confirmed_at', 'When the other source saw it.'),
            ('event_id', 'Follow Up Boss''s id of the event, where a webhook reported it.'),
            ('raw_payload', 'The evidence: the webhook, or the person as read.'),
            ('assigned_user_id', 'Follow Up Boss''s id of the agent at the time of the change.'),
            ('assigned_user_name', 'The agent at the time of the change.'),
            ('lead_source_tag', 'The first of FUBD_LEAD_SOURCE_TAGS that the person had.')
        ) AS d(name, meaning)
        JOIN pg_attribute a ON a.attrelid = 'public.stage_changes'::regclass AND a.attname = d.name AND NOT a.attisdropped
        WHERE NOT EXISTS (SELECT FROM fubd.adoption f WHERE NOT f.facts->'added' ? d.name)
    LOOP
        EXECUTE format('COMMENT ON COLUMN public.stage_changes.%I IS %L', described.name, described.meaning);
    END LOOP;
    IF NOT EXISTS (SELECT FROM fubd.adoption) THEN
        COMMENT ON TABLE public.stage_changes IS 'One row for each stage that a person really entered. Written by fubd.';
    END IF;
    -- The role of deploy/reader.sql can go on reading the views.
    IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'fubd_reader') THEN
        GRANT SELECT ON fubd.time_zone TO fubd_reader;
        GRANT SELECT (id, mode) ON fubd.mode_change TO fubd_reader;
        DROP POLICY IF EXISTS fubd_reader_reads ON fubd.time_zone;
        CREATE POLICY fubd_reader_reads ON fubd.time_zone FOR SELECT TO fubd_reader USING (true);
        DROP POLICY IF EXISTS fubd_reader_reads ON fubd.mode_change;
        CREATE POLICY fubd_reader_reads ON fubd.mode_change FOR SELECT TO fubd_reader USING (true);
    END IF;
END
$$;
