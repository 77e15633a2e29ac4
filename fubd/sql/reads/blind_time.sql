-- For how many seconds between $1 and $2 nobody watched, so that a change could have come and gone unseen; no row before the first poll.
-- A delivery watches until silence turns stale, unless webhooks were known to fail; a poll until the next one is a full delay late, and
-- never for longer than its own staleness. Derived from what was recorded, so it counts also while nothing of fubd runs.
WITH stale AS (
    SELECT
        make_interval(secs => max(s.value) FILTER (WHERE s.name = 'webhook_stale_after_seconds')) AS webhook,
        max(s.value) FILTER (WHERE s.name = 'poll_stale_after_seconds') AS polling
    FROM fubd.setting s
), asked AS (
    SELECT greatest($1::timestamptz, f.finished_at) AS began, $2::timestamptz AS ended
    FROM (SELECT min(r.finished_at) AS finished_at FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub') f
    WHERE f.finished_at <= $2
), spans AS MATERIALIZED (
    -- Two instances' clocks may differ; the last mode goes on.
    SELECT m.mode, m.delay_seconds, tstzrange(m.at, CASE WHEN m.next IS NOT NULL THEN greatest(m.at, m.next) END) AS span
    FROM (SELECT m.*, lead(m.at) OVER (ORDER BY m.id) AS next FROM fubd.mode_change m) m
), polls AS (
    SELECT r.started_at, r.finished_at, r.next_within_seconds, lead(r.finished_at) OVER (ORDER BY r.finished_at) AS next
    FROM asked CROSS JOIN stale
    JOIN fubd.poll_run r ON r.outcome = 'ok' AND r.kind <> 'scrub' AND r.finished_at >= asked.began - make_interval(secs => stale.polling)
), polled AS (
    -- What a poll promised ends with the next, which may promise less; a recovery run says itself what it does. The delay is 0 only in
    -- `starting`: that decided for nothing beyond its own poll.
    SELECT range_agg(tstzrange(least(r.started_at, r.finished_at), least(r.next, r.finished_at
        + make_interval(secs => least(2 * coalesce(r.next_within_seconds, nullif(p.delay_seconds, 0), stale.polling), stale.polling))))) AS watched
    FROM polls r CROSS JOIN stale
    LEFT JOIN LATERAL (SELECT s.delay_seconds FROM spans s WHERE s.span @> r.finished_at LIMIT 1) p ON true
), heard AS (
    SELECT range_agg(tstzrange(d.received_at, d.received_at + stale.webhook)) AS watched
    FROM asked CROSS JOIN stale JOIN fubd.delivery d ON d.received_at >= asked.began - stale.webhook
), failing AS (
    SELECT range_agg(s.span) AS known FROM spans s WHERE s.mode = 'failover'
)
SELECT sum(extract(epoch FROM upper(b.blind) - lower(b.blind)))::float8 AS seconds
FROM asked, polled, heard, failing,
    LATERAL (
        SELECT tstzmultirange(tstzrange(asked.began, asked.ended)) - coalesce(polled.watched, '{}')
            - (coalesce(heard.watched, '{}') - coalesce(failing.known, '{}')) AS unwatched
    ) u
    LEFT JOIN LATERAL unnest(u.unwatched) AS b(blind) ON true
HAVING count(*) > 0
