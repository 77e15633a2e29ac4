-- Keep the deliveries, lock the people, add the claims; says which deliveries and which claims are new, and since when we watch.
-- Each step waits for the one before, so that all transactions take their locks in one order: deliveries, people, claims.
WITH delivered AS (
    INSERT INTO fubd.delivery (key, event_id, event, received_at, instance, quarantine, body)
    SELECT d.key, d.event_id, d.event, d.received_at, $1, d.quarantine, d.body
    FROM unnest($2::bytea[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::bytea[])
        AS d(key, event_id, event, received_at, quarantine, body)
    ORDER BY d.key
    ON CONFLICT (key) DO NOTHING
    RETURNING key
), born AS (
    INSERT INTO fubd.person (id)
    SELECT p.id FROM unnest($8::bigint[]) AS p(id) WHERE (SELECT count(*) FROM delivered) >= 0 ORDER BY p.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), locked AS MATERIALIZED (
    SELECT p.id FROM fubd.person p
    WHERE p.id = ANY($8::bigint[]) AND (SELECT count(*) FROM born) >= 0
    ORDER BY p.id
    FOR NO KEY UPDATE
), said AS MATERIALIZED (
    -- From where on the ids lie that this transaction draws, before it draws any: who pages by id waits for them (reads/safe_id.sql).
    -- The key of an advisory lock is 32 bits and has a sign.
    SELECT pg_advisory_xact_lock_shared(1718968937, ((d.id % 4294967296 + 2147483648) % 4294967296 - 2147483648)::integer)::text AS lock
    FROM (SELECT coalesce(pg_sequence_last_value($21::text::regclass), 0) AS id WHERE (SELECT count(*) FROM locked) >= 0) d
), claimed AS (
    INSERT INTO fubd.claim AS k
        (person_id, at, kind, channel, event_id, stage, stage_id, received_at, read_at, covered, created, ignored)
    SELECT c.person_id, c.at, c.kind, c.channel, c.event_id, c.stage, c.stage_id, c.received_at, c.read_at, c.covered, c.created, c.ignored
    FROM unnest(
        $9::bigint[], $10::timestamptz[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::timestamptz[],
        $17::timestamptz[], $18::timestamptz[], $19::timestamptz[], $20::boolean[]
    ) AS c(person_id, at, kind, channel, event_id, stage, stage_id, received_at, read_at, covered, created, ignored)
    WHERE (SELECT count(said.lock) FROM said) >= 0
    -- No ORDER BY: seq is the order of arrival. The same state read again holds for longer; but coverage at a later read says nothing of
    -- when the stage before was left, for the earlier read had shown the new one already: the lowest stays, and unknown is lowest of all.
    ON CONFLICT (person_id, at, kind, channel, event_id, stage) DO UPDATE
        SET read_at = greatest(k.read_at, excluded.read_at),
            covered = CASE WHEN k.covered IS NOT NULL AND excluded.covered IS NOT NULL THEN least(k.covered, excluded.covered) END
        WHERE k.kind = 'state' AND (k.read_at < excluded.read_at OR k.covered > excluded.covered OR (k.covered IS NOT NULL AND excluded.covered IS NULL))
    RETURNING k.person_id, k.seq, (k.xmax = 0) AS added
), others AS (
    -- Rows of other writers that were noticed since the last claim of the person.
    UPDATE fubd.foreign_row f SET settled = true
    WHERE NOT f.settled AND f.person_id IN (SELECT claimed.person_id FROM claimed)
    RETURNING f.person_id, f.since
)
SELECT
    (SELECT array_agg(delivered.key) FROM delivered) AS delivered,
    (SELECT array_agg(claimed.seq) FROM claimed WHERE claimed.added) AS claimed,
    (SELECT array_agg(claimed.seq) FROM claimed) AS touched,
    (SELECT array_agg(others.person_id) FROM others) AS others,
    (SELECT array_agg(others.since) FROM others) AS since,
    (SELECT count(*) FROM born) + (SELECT count(*) FROM locked) AS locked,
    (SELECT v.began FROM fubd.coverage v) AS began
