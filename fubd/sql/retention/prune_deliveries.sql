-- Remove at most :limit raw deliveries, oldest first. The newest stays, and the newest stage event, because `last_heard` reads them.
-- Deliveries of another process stay a day longer: a running process prunes its own, and subtracts those above :counted_after from its balance.
WITH old AS (
    SELECT d.id
    FROM fubd.delivery d
    WHERE d.received_at < now() - make_interval(secs => :older_than_days::float8 * 86400)
        AND (d.instance = :instance OR d.received_at < now() - make_interval(secs => (:older_than_days::float8 + 1) * 86400))
        AND d.id < (SELECT max(n.id) FROM fubd.delivery n)
        AND d.id <> coalesce((SELECT max(n.id) FROM fubd.delivery n WHERE n.event = 'peopleStageUpdated'), 0)
    ORDER BY d.id
    LIMIT :limit
), removed AS (
    DELETE FROM fubd.delivery d USING old WHERE d.id = old.id RETURNING d.id, d.instance
)
SELECT count(*) AS removed, count(*) FILTER (WHERE r.instance = :instance AND r.id > :counted_after::bigint) AS own FROM removed r
