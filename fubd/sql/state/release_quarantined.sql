-- Release a delivery from quarantine, unless a claim of it is not recorded, and request its people to be refetched.
-- :stage is null where the event names none. Rows received from :asked_at on are filled by the refetch.
WITH released AS (
    UPDATE fubd.delivery d SET quarantine = NULL, event_id = :event_id, event = :event
    WHERE d.key = :key AND d.quarantine IS NOT NULL AND (:stage::text IS NULL OR cardinality(:person_ids::bigint[]) = (
        SELECT count(*) FROM fubd.claim k
        WHERE k.person_id = ANY(:person_ids::bigint[]) AND k.at = :at AND k.kind = 'entry' AND k.channel = 'webhook'
            AND k.event_id = :event_id AND k.stage = :stage
    ))
    RETURNING d.id
), requested AS (
    INSERT INTO fubd.hint AS h (person_id, since, asked_at)
    SELECT p.id, :at::timestamptz, :asked_at::timestamptz FROM released, unnest(:person_ids::bigint[]) AS p(id) ORDER BY p.id
    ON CONFLICT (person_id) DO UPDATE SET since = greatest(h.since, excluded.since), not_before = '-infinity'
)
SELECT count(*) AS released FROM released
