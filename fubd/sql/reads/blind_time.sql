-- Each time between :since and :until (our clock) in which no source was alive, so that a change could have come and gone unseen. One row of
-- nulls when there was none, no row before the first complete poll. A delivery keeps webhooks alive until silence turns stale, unless the mode was failover. A poll keeps
-- polling alive until the next poll is a full delay late, but never for longer than FUBD_POLL_STALE_AFTER. All of it is derived from what
-- was recorded, so time in which no fubd ran counts too.
WITH stale AS (
    SELECT
        make_interval(secs => max(s.value) FILTER (WHERE s.name = 'webhook_stale_after_seconds')) AS webhook,
        max(s.value) FILTER (WHERE s.name = 'poll_stale_after_seconds') AS polling
    FROM fubd.setting s
), asked AS (
    SELECT greatest(:since::timestamptz, f.finished_at) AS began, :until::timestamptz AS ended
    FROM (SELECT min(r.finished_at) AS finished_at FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub') f
    WHERE f.finished_at <= :until
), spans AS MATERIALIZED (
    -- The clocks of two instances may differ, so a span never ends before it begins. The last mode is still in force.
    SELECT m.mode, m.delay_seconds, tstzrange(m.at, CASE WHEN m.next IS NOT NULL THEN greatest(m.at, m.next) END) AS span
    FROM (SELECT m.*, lead(m.at) OVER (ORDER BY m.id) AS next FROM fubd.mode_change m) m
), polls AS (
    SELECT r.started_at, r.finished_at, r.next_within_seconds, lead(r.finished_at) OVER (ORDER BY r.finished_at) AS next
    FROM asked CROSS JOIN stale
    JOIN fubd.poll_run r ON r.outcome = 'ok' AND r.kind <> 'scrub' AND r.finished_at >= asked.began - make_interval(secs => stale.polling)
), polled AS (
    -- The next poll ends the span of this one, because it may be followed sooner or later. A recovery run states its own delay. A mode's delay
    -- is 0 only in `starting`, which decides nothing beyond its own poll.
    SELECT range_agg(tstzrange(least(r.started_at, r.finished_at), least(r.next, r.finished_at
        + make_interval(secs => least(2 * coalesce(r.next_within_seconds, nullif(p.delay_seconds, 0), stale.polling), stale.polling))))) AS alive
    FROM polls r CROSS JOIN stale
    LEFT JOIN LATERAL (SELECT s.delay_seconds FROM spans s WHERE s.span @> r.finished_at LIMIT 1) p ON true
), heard AS (
    SELECT range_agg(tstzrange(d.received_at, d.received_at + stale.webhook)) AS alive
    FROM asked CROSS JOIN stale JOIN fubd.delivery d ON d.received_at >= asked.began - stale.webhook
), failing AS (
    SELECT range_agg(s.span) AS known FROM spans s WHERE s.mode = 'failover'
)
SELECT lower(b.blind) AS began, upper(b.blind) AS ended
FROM asked, polled, heard, failing,
    LATERAL (
        SELECT tstzmultirange(tstzrange(asked.began, asked.ended)) - coalesce(polled.alive, '{}')
            - (coalesce(heard.alive, '{}') - coalesce(failing.known, '{}')) AS blind
    ) u
    LEFT JOIN LATERAL unnest(u.blind) AS b(blind) ON true
ORDER BY 1
