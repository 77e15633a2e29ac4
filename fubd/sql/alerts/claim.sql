-- Take up to $1 alerts to be sent now, at most one a subject and none before an older one of its subject; for $2 seconds they are ours.
WITH first AS MATERIALIZED (
    SELECT a.id FROM fubd.alert a
    WHERE a.due_at <= now() AND NOT EXISTS (SELECT FROM fubd.alert b WHERE b.subject = a.subject AND b.id < a.id)
    ORDER BY a.id
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE fubd.alert a SET due_at = now() + make_interval(secs => $2), attempts = a.attempts + 1
    FROM first WHERE a.id = first.id
    RETURNING a.id, a.subject, a.told, a.attempts
)
SELECT c.id, c.told, c.attempts, p.first_name, p.last_name
FROM claimed c LEFT JOIN fubd.person p ON p.id = c.subject
ORDER BY c.id
