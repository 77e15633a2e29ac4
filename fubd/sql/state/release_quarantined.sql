-- Take a delivery ($1: its key) out of quarantine, provided that all it claims is recorded, and ask for its people ($4) to be read.
-- $2, $3: its event; $5: when that happened; $6: the stage they entered, null when it told none; $7: rows received from then on are filled.
WITH released AS (
    UPDATE fubd.delivery d SET quarantine = NULL, event_id = $2, event = $3
    WHERE d.key = $1 AND d.quarantine IS NOT NULL AND ($6::text IS NULL OR cardinality($4::bigint[]) = (
        SELECT count(*) FROM fubd.claim k
        WHERE k.person_id = ANY($4::bigint[]) AND k.at = $5 AND k.kind = 'entry' AND k.channel = 'webhook' AND k.event_id = $2 AND k.stage = $6
    ))
    RETURNING d.id
), asked AS (
    INSERT INTO fubd.hint AS h (person_id, since, asked_at)
    SELECT p.id, $5::timestamptz, $7::timestamptz FROM released, unnest($4::bigint[]) AS p(id) ORDER BY p.id
    ON CONFLICT (person_id) DO UPDATE SET since = greatest(h.since, excluded.since), not_before = '-infinity'
)
SELECT count(*) AS released FROM released
