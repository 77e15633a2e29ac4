-- Take up to :limit due alerts for :for_seconds, at most one a subject, and none before an older one of its subject.
WITH first AS MATERIALIZED (
    SELECT a.id FROM fubd.alert a
    WHERE a.due_at <= now() AND NOT EXISTS (SELECT FROM fubd.alert b WHERE b.subject = a.subject AND b.id < a.id)
    ORDER BY a.id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE fubd.alert a SET due_at = now() + make_interval(secs => :for_seconds), attempts = a.attempts + 1
    FROM first WHERE a.id = first.id
    RETURNING a.id, a.subject, a.told AS content, a.attempts
)
SELECT c.id, c.content, c.attempts, p.first_name, p.last_name, p.assigned_user_name
FROM claimed c LEFT JOIN fubd.person p ON p.id = c.subject
ORDER BY c.id
