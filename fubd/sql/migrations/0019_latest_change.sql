-- The latest change of each source is one step in its index, whatever the planner knows of the table. Asked for `source = …` it could choose
-- the index by time and read all of it for a source that has no change: it did so where the table was analyzed but not yet vacuumed.

CREATE OR REPLACE VIEW public.source_health AS
WITH RECURSIVE written (source, changed_at) AS (
    -- The few values of the column, from the last, each with its latest usable instant. Only the index by source has the order asked for.
    (
        SELECT c.source::text, fubd.instant(c.changed_at) FROM public.stage_changes c
        WHERE c.source IS NOT NULL AND c.changed_at < '9000-01-01' ORDER BY c.source DESC, c.changed_at DESC LIMIT 1
    )
    UNION ALL
    SELECT n.source, n.changed_at
    FROM written w
    CROSS JOIN LATERAL (
        SELECT c.source::text AS source, fubd.instant(c.changed_at) AS changed_at FROM public.stage_changes c
        WHERE c.source < w.source AND c.changed_at < '9000-01-01' ORDER BY c.source DESC, c.changed_at DESC LIMIT 1
    ) n
), without_source AS (
    SELECT fubd.instant(c.changed_at) AS changed_at FROM public.stage_changes c
    WHERE c.source IS NULL AND c.changed_at < '9000-01-01' ORDER BY c.source DESC, c.changed_at DESC LIMIT 1
), today AS (
    SELECT fubd.source_of(c.source) AS source, count(*) AS records
    FROM public.stage_changes c
    -- The first condition is for the index: of an older table, whose instants have no zone, or of ours, read in any zone of the session.
    WHERE c.received_at >= (
            SELECT date_trunc('day', now() AT TIME ZONE z.name) AT TIME ZONE z.name AT TIME ZONE 'UTC' - interval '12 hours' FROM fubd.time_zone z
        )
        AND c.received_at < '9000-01-01'
        AND fubd.instant(c.received_at) >= (SELECT date_trunc('day', now() AT TIME ZONE z.name) AT TIME ZONE z.name FROM fubd.time_zone z)
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
        (SELECT max(w.changed_at) FROM written w WHERE fubd.source_of(w.source) = h.source),
        (SELECT w.changed_at FROM without_source w WHERE h.source = fubd.source_of(NULL))
    ) AS latest_change,
    CASE WHEN h.last_heard >= now() - make_interval(secs => h.stale_after) AND NOT h.failing THEN 'HEALTHY' ELSE h.stale END AS status,
    h.last_heard
FROM heard h;
