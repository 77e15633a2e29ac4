-- For how many seconds of this day (UTC) nobody watched, so that a change could have come and gone unseen; null before the first poll.
-- A delivery watches until silence turns stale, unless webhooks were known to fail; a poll until the next one is a full delay late, and
-- never for longer than its own staleness. Derived from what was recorded, so it counts also while nothing of fubd runs.
WITH stale AS (
    SELECT
        make_interval(secs => max(s.value) FILTER (WHERE s.name = 'webhook_stale_after_seconds')) AS webhook,
        max(s.value) FILTER (WHERE s.name = 'poll_stale_after_seconds') AS polling
    FROM fubd.setting s
), day AS (
    SELECT greatest(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC', f.finished_at) AS began, now() AS ended
    FROM (SELECT min(r.finished_at) AS finished_at FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub') f
    WHERE f.finished_at <= now()
), spans AS MATERIALIZED (
    SELECT m.mode, m.delay_seconds, tstzrange(m.at, greatest(m.at, lead(m.at) OVER (ORDER BY m.id))) AS span FROM fubd.mode_change m
), polled AS (
    -- The delay is 0 only in `starting`: that decided for nothing beyond its own poll.
    SELECT range_agg(tstzrange(least(r.started_at, r.finished_at), r.finished_at
        + make_interval(secs => least(2 * coalesce(nullif(p.delay_seconds, 0), stale.polling), stale.polling)))) AS watched
    FROM day CROSS JOIN stale
    JOIN fubd.poll_run r ON r.outcome = 'ok' AND r.kind <> 'scrub' AND r.finished_at >= day.began - make_interval(secs => stale.polling)
    LEFT JOIN LATERAL (SELECT s.delay_seconds FROM spans s WHERE s.span @> r.finished_at LIMIT 1) p ON true
), heard AS (
    SELECT range_agg(tstzrange(d.received_at, d.received_at + stale.webhook)) AS watched
    FROM day CROSS JOIN stale JOIN fubd.delivery d ON d.received_at >= day.began - stale.webhook
), failing AS (
    SELECT range_agg(s.span) AS known FROM spans s WHERE s.mode = 'failover'
)
SELECT sum(extract(epoch FROM upper(b.blind) - lower(b.blind)))::float8 AS seconds
FROM day, polled, heard, failing,
    LATERAL (
        SELECT tstzmultirange(tstzrange(day.began, day.ended)) - coalesce(polled.watched, '{}')
            - (coalesce(heard.watched, '{}') - coalesce(failing.known, '{}')) AS unwatched
    ) u
    LEFT JOIN LATERAL unnest(u.unwatched) AS b(blind) ON true
HAVING count(*) > 0
