-- What `status` needs besides the summary: the database's clock, the settings to judge by, until when an instance polls,
-- and when a daemon last reported.
SELECT
    now() AS now,
    (SELECT s.value FROM fubd.setting s WHERE s.name = 'webhook_stale_after_seconds') AS webhook_stale_after,
    (SELECT s.value FROM fubd.setting s WHERE s.name = 'poll_stale_after_seconds') AS polling_stale_after,
    (SELECT nullif(max(l.expires_at), '-infinity') FROM fubd.lease l) AS polled_until,
    greatest((SELECT max(r.alive_at) FROM fubd.process_run r), (SELECT max(p.reported_at) FROM fubd.problem p)) AS reported_at
