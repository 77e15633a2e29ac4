-- Take up to :limit due messages for :for_seconds, and return their events. A message is one event, or all events of a digest; none is taken
-- while an older event of one of its subjects waits outside it.
WITH first AS MATERIALIZED (
    SELECT a.id, a.digest FROM fubd.alert a
    WHERE a.due_at <= now()
        AND NOT EXISTS (SELECT FROM fubd.alert d WHERE d.digest = a.digest AND d.id < a.id)
        AND NOT EXISTS (
            SELECT FROM fubd.alert m JOIN fubd.alert b ON b.subject = m.subject AND b.id < m.id AND b.digest IS DISTINCT FROM a.digest
            WHERE m.digest = a.digest
        )
        AND (a.digest IS NOT NULL OR NOT EXISTS (SELECT FROM fubd.alert b WHERE b.subject = a.subject AND b.id < a.id))
    ORDER BY a.id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE fubd.alert a SET due_at = now() + make_interval(secs => :for_seconds), attempts = a.attempts + 1
    FROM first WHERE a.id = first.id OR a.digest = first.digest
    RETURNING a.id, a.digest, a.subject, a.told AS content, a.attempts
)
SELECT c.id, c.digest, c.content, c.attempts, p.first_name, p.last_name, p.assigned_user_name
FROM claimed c LEFT JOIN fubd.person p ON p.id = c.subject
ORDER BY c.id
