-- The mode in force at :since and the changes after it, newest first.
SELECT m.mode, m.reason, m.delay_seconds, m.at
FROM fubd.mode_change m
WHERE m.id >= coalesce((SELECT max(b.id) FROM fubd.mode_change b WHERE b.at <= :since), 0)
ORDER BY m.id DESC
LIMIT 500
