-- Take up to :limit due messages for :for_seconds, and return their events. A message is one event, or all events of a digest; none is taken
-- while an older event of one of its subjects waits outside it.
WITH heads AS MATERIALIZED (
    -- The first event of each message, so that a digest is examined once.
    SELECT min(a.id) AS id FROM fubd.alert a WHERE a.due_at <= now() GROUP BY coalesce(a.digest, -a.id)
), first AS MATERIALIZED (
    SELECT a.id, a.digest FROM heads h JOIN fubd.alert a ON a.id = h.id
    WHERE a.due_at <= now() AND CASE
        WHEN a.digest IS NULL THEN NOT EXISTS (SELECT FROM fubd.alert b WHERE b.subject = a.subject AND b.id < a.id)
        ELSE NOT EXISTS (
            SELECT FROM fubd.alert m JOIN fubd.alert b ON b.subject = m.subject AND b.id < m.id AND b.digest IS DISTINCT FROM m.digest
            WHERE m.digest = a.digest
        )
    END
    ORDER BY a.id
    LIMIT :limit
    FOR UPDATE OF a SKIP LOCKED
), taken AS (
    SELECT f.id FROM first f UNION SELECT d.id FROM first f JOIN fubd.alert d ON d.digest = f.digest
), claimed AS (
    UPDATE fubd.alert a SET due_at = now() + make_interval(secs => :for_seconds), attempts = a.attempts + 1
    FROM taken t WHERE a.id = t.id
    RETURNING a.id, a.digest, a.subject, a.told AS content, a.attempts
)
SELECT c.id, c.digest, c.content, c.attempts, p.first_name, p.last_name, p.assigned_user_name
FROM claimed c LEFT JOIN fubd.person p ON p.id = c.subject
ORDER BY c.id
