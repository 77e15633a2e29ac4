-- What people read. An older table keeps instants as `timestamp` holding UTC; both kinds are brought to timestamptz here.

CREATE FUNCTION fubd.instant(timestamptz) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION fubd.instant(timestamp) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$SELECT $1 AT TIME ZONE 'UTC'$$;
CREATE FUNCTION fubd.source_of(text) RETURNS text IMMUTABLE LANGUAGE sql
    AS $$SELECT CASE WHEN $1 = 'webhook' OR $1 LIKE 'wh\_%' OR $1 LIKE 'webhook\_%' THEN 'webhook' ELSE 'polling' END$$;

CREATE VIEW public.source_health AS
WITH heard AS (
    SELECT
        'webhook' AS source,
        (SELECT d.received_at FROM fubd.delivery d ORDER BY d.id DESC LIMIT 1) AS last_heard,
        (SELECT s.value FROM fubd.setting s WHERE s.name = 'webhook_stale_after_seconds') AS stale_after,
        'STALE - Check webhook server' AS stale
    UNION ALL
    SELECT
        'polling',
        (SELECT r.finished_at FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub' ORDER BY r.finished_at DESC LIMIT 1),
        (SELECT s.value FROM fubd.setting s WHERE s.name = 'poll_stale_after_seconds'),
        'STALE - Check polling'
), told AS (
    SELECT
        fubd.source_of(c.source) AS source,
        count(*) FILTER (WHERE fubd.instant(c.received_at) >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') AS records_today,
        max(fubd.instant(c.changed_at)) AS latest_change
    FROM public.stage_changes c
    GROUP BY 1
)
SELECT
    heard.source,
    coalesce(told.records_today, 0) AS records_today,
    told.latest_change,
    CASE WHEN heard.last_heard >= now() - make_interval(secs => heard.stale_after) THEN 'HEALTHY' ELSE heard.stale END AS status,
    heard.last_heard
FROM heard LEFT JOIN told USING (source);

CREATE VIEW public.stage_durations AS
SELECT
    c.id, c.person_id, c.stage_to AS stage,
    fubd.instant(c.changed_at) AS entered_at,
    lead(fubd.instant(c.changed_at)) OVER person AS left_at,
    lead(c.stage_to) OVER person AS next_stage,
    coalesce(lead(fubd.instant(c.changed_at)) OVER person, now()) - fubd.instant(c.changed_at) AS duration
FROM public.stage_changes c
WINDOW person AS (PARTITION BY c.person_id ORDER BY c.changed_at, c.id);

CREATE VIEW public.rapid_transitions AS
SELECT d.id, d.person_id, d.stage, d.next_stage, d.entered_at, d.left_at, d.duration
FROM public.stage_durations d
WHERE d.left_at IS NOT NULL AND d.duration <= interval '5 minutes';

CREATE VIEW public.stage_changes_daily AS
SELECT
    (fubd.instant(c.changed_at) AT TIME ZONE 'UTC')::date AS day, fubd.source_of(c.source) AS source, c.stage_to AS stage, count(*) AS changes
FROM public.stage_changes c
GROUP BY 1, 2, 3;

-- The last row tells where a person stands, unless a read later than it shows another stage (a stage that is not recorded).
CREATE VIEW public.current_stages AS
SELECT
    p.id::text AS person_id,
    CASE WHEN p.stage IS NULL OR fubd.instant(c.changed_at) >= p.updated THEN c.stage_to ELSE p.stage END AS stage,
    CASE WHEN p.stage IS NULL OR p.stage = c.stage_to OR fubd.instant(c.changed_at) >= p.updated THEN fubd.instant(c.changed_at) END AS since,
    p.verified_at,
    p.gone_at
FROM fubd.person p
LEFT JOIN LATERAL (
    SELECT s.stage_to, s.changed_at FROM public.stage_changes s
    WHERE s.person_id = p.id::text ORDER BY s.changed_at DESC, s.id DESC LIMIT 1
) c ON true
WHERE p.stage IS NOT NULL OR c.stage_to IS NOT NULL;
