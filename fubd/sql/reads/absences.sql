-- The times between :since and :until (our clock) in which no process ran, after the first that is known, and in which one could not record.
-- The reader's own process runs since :started_at. Shorter ones than :least_seconds are left out: a process is noted only so often.
WITH ran AS (
    SELECT p.started_at, greatest(p.started_at, p.alive_at) AS alive_at FROM fubd.process_run p WHERE p.alive_at >= :since
    UNION ALL
    SELECT least(:started_at::timestamptz, :until), :until::timestamptz
), known AS (
    SELECT greatest(:since::timestamptz, least((SELECT min(p.started_at) FROM fubd.process_run p), :started_at)) AS began
), absent AS (
    SELECT 'not_running' AS kind, lower(u.span) AS since, upper(u.span) AS until
    FROM known k, LATERAL (
        SELECT unnest(
            CASE WHEN k.began < :until THEN tstzmultirange(tstzrange(k.began, :until)) ELSE '{}' END
                - range_agg(tstzrange(r.started_at, r.alive_at))
        ) AS span
        FROM ran r
    ) u
    UNION ALL
    SELECT 'not_recording', greatest(g.began_at, :since), least(g.ended_at, :until)
    FROM fubd.recording_gap g WHERE g.ended_at > :since AND g.began_at < :until
)
SELECT a.kind, a.since, a.until FROM absent a
WHERE a.until - a.since >= make_interval(secs => :least_seconds)
ORDER BY a.since, a.kind
LIMIT 500
