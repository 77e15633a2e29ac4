-- The sessions that hold a lock for which a session of this application waits, without those that wait themselves.
SELECT DISTINCT h.pid, h.usename::text AS user, h.application_name AS application, h.state, h.xact_start AS since, h.query
FROM pg_stat_activity w
CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) AS b(pid)
JOIN pg_stat_activity h ON h.pid = b.pid
WHERE w.datname = current_database() AND w.usename = current_user AND w.application_name = :application
    AND w.wait_event_type = 'Lock' AND h.wait_event_type IS DISTINCT FROM 'Lock'
ORDER BY h.xact_start
LIMIT 3
