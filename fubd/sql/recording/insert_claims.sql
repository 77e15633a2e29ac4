-- Insert the deliveries, lock the people, add the claims and load what stands near them. Each step waits for the one before, so that all
-- transactions take their locks in one order: deliveries, people, claims. Returns the rows of `fubd.load_history`, and a last one that says
-- which deliveries and claims are new, which people had been read before, and since when we watch.
WITH inserted AS (
    INSERT INTO fubd.delivery (key, event_id, event, received_at, instance, quarantine, body)
    -- Of a delivery that is about a forgotten person alone, only what fubd itself needs is kept.
    SELECT d.key, d.event_id, d.event, d.received_at, :instance, d.quarantine, CASE WHEN f.person_id IS NULL THEN d.body ELSE '' END
    FROM unnest(
        :delivery_key::bytea[], :delivery_event_id::text[], :delivery_event::text[], :delivery_received_at::timestamptz[],
        :delivery_quarantine::text[], :delivery_body::bytea[], :delivery_only_person_id::bigint[]
    ) AS d(key, event_id, event, received_at, quarantine, body, only_person_id)
    LEFT JOIN fubd.forgotten f ON f.person_id = d.only_person_id
    ORDER BY d.key
    ON CONFLICT (key) DO NOTHING
    RETURNING key
), new_people AS (
    INSERT INTO fubd.person (id)
    SELECT p.id FROM unnest(:people::bigint[]) AS p(id) WHERE (SELECT count(*) FROM inserted) >= 0 ORDER BY p.id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), locked AS MATERIALIZED (
    SELECT p.id, p.updated IS NOT NULL AS is_known FROM fubd.person p
    WHERE p.id = ANY(:people::bigint[]) AND (SELECT count(*) FROM new_people) >= 0
    ORDER BY p.id
    FOR NO KEY UPDATE
), advisory_lock AS MATERIALIZED (
    -- Announces the first id that this transaction may draw, before it draws any: readers who page by id wait for it (reads/safe_id.sql).
    -- The key of an advisory lock is a signed 32-bit number.
    SELECT pg_advisory_xact_lock_shared(1718968937, ((d.id % 4294967296 + 2147483648) % 4294967296 - 2147483648)::integer)::text AS lock
    FROM (SELECT coalesce(pg_sequence_last_value(:sequence::text::regclass), 0) AS id WHERE (SELECT count(*) FROM locked) >= 0) d
), named AS (
    SELECT c.person_id, c.at, c.kind, c.channel, c.event_id, c.stage_id, c.received_at, c.read_at, c.first_read_at, c.covered, c.created,
        c.ignored,
        -- Webhooks may write a stage in another case than lists of people do: rows have the name that people have.
        CASE
            WHEN c.kind = 'state' OR EXISTS (SELECT FROM fubd.stage g WHERE g.name = c.stage) THEN c.stage
            ELSE coalesce((SELECT min(g.name) FROM fubd.stage g WHERE lower(g.name) = lower(c.stage)), c.stage)
        END AS stage
    FROM unnest(
        :claim_person_id::bigint[], :claim_at::timestamptz[], :claim_kind::text[], :claim_channel::text[], :claim_event_id::text[],
        :claim_stage::text[], :claim_stage_id::bigint[], :claim_received_at::timestamptz[], :claim_read_at::timestamptz[],
        :claim_first_read_at::timestamptz[], :claim_watermark::timestamptz[], :claim_created::timestamptz[], :claim_ignored::boolean[]
    ) AS c(person_id, at, kind, channel, event_id, stage, stage_id, received_at, read_at, first_read_at, covered, created, ignored)
), upserted AS (
    INSERT INTO fubd.claim AS k
        (person_id, at, kind, channel, event_id, stage, stage_id, received_at, read_at, first_read_at, covered, created, ignored, seq)
    SELECT c.person_id, c.at, c.kind, c.channel, i.event_id, c.stage,
        -- A webhook names no id: the claim keeps the one that the name had then, as far as that is known.
        coalesce(
            c.stage_id,
            (SELECT f.id FROM fubd.former_stage f WHERE f.name = c.stage AND f.until > c.at ORDER BY f.until LIMIT 1),
            (SELECT g.id FROM fubd.stage g WHERE g.name = c.stage)
        ),
        c.received_at, c.read_at, c.first_read_at, c.covered, c.created, c.ignored,
        -- A known claim keeps its seq and draws none, so that the ids of rows have no gap for each read that says nothing new.
        coalesce(
            (
                SELECT e.seq FROM fubd.claim e
                WHERE e.person_id = c.person_id AND e.at = c.at AND e.kind = c.kind AND e.channel = c.channel AND e.event_id = i.event_id
                    AND e.stage = c.stage
            ),
            nextval(:sequence::text::regclass)
        )
    FROM named c
    CROSS JOIN LATERAL (
        SELECT CASE c.kind WHEN 'state' THEN fubd.stay_id(c.person_id, c.at, c.channel, c.stage, c.first_read_at) ELSE c.event_id END AS event_id
    ) i
    WHERE (SELECT count(advisory_lock.lock) FROM advisory_lock) >= 0
        -- An event that is sent again with a later instant is the same event: the earliest holds (see core/reconcile.py for the reverse).
        AND NOT EXISTS (
            SELECT FROM fubd.claim e
            WHERE c.kind = 'entry' AND e.person_id = c.person_id AND e.kind = 'entry' AND e.event_id = c.event_id AND e.stage = c.stage
                AND e.at < c.at
        )
    -- No ORDER BY: seq is the order of arrival. The same state read again holds for longer. But the watermark of a later read says nothing
    -- about when the stage before was left, because the earlier read had shown the new one already: the lowest is kept, and unknown is
    -- lower than any.
    ON CONFLICT (person_id, at, kind, channel, event_id, stage) DO UPDATE
        SET read_at = greatest(k.read_at, excluded.read_at),
            first_read_at = least(coalesce(k.first_read_at, k.read_at), excluded.first_read_at),
            covered = CASE WHEN k.covered IS NOT NULL AND excluded.covered IS NOT NULL THEN least(k.covered, excluded.covered) END
        WHERE k.kind = 'state' AND (k.read_at < excluded.read_at OR k.first_read_at > excluded.first_read_at OR k.covered > excluded.covered OR (k.covered IS NOT NULL AND excluded.covered IS NULL))
    RETURNING k.person_id, k.seq, (k.xmax = 0) AS added
), foreign_rows AS (
    -- Rows of other writers that were noticed since the last claim of the person.
    UPDATE fubd.foreign_row f SET settled = true
    WHERE NOT f.settled AND f.person_id IN (SELECT upserted.person_id FROM upserted)
    RETURNING f.person_id, f.since
), near AS (
    SELECT n.person_id, min(n.since) AS since
    FROM (
        SELECT a.person_id, a.since FROM unnest(:since_person_id::bigint[], :since::timestamptz[]) AS a(person_id, since)
        UNION ALL SELECT foreign_rows.person_id, foreign_rows.since FROM foreign_rows
    ) n
    WHERE (SELECT count(*) FROM upserted) > 0
    GROUP BY n.person_id
)
SELECT h.*, NULL::bytea[] AS deliveries, NULL::bigint[] AS claims, NULL::bigint[] AS upserted, NULL::bigint[] AS known,
    NULL::bigint AS locked, NULL::timestamptz AS began
FROM (SELECT array_agg(near.person_id) AS people, array_agg(near.since) AS since FROM near) a
CROSS JOIN LATERAL fubd.load_history(a.people, a.since, :stage_length::int) h
UNION ALL
SELECT 'evidence', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    (SELECT array_agg(inserted.key) FROM inserted),
    (SELECT array_agg(upserted.seq) FROM upserted WHERE upserted.added),
    (SELECT array_agg(upserted.seq) FROM upserted),
    (SELECT array_agg(locked.id) FROM locked WHERE locked.is_known),
    (SELECT count(*) FROM new_people) + (SELECT count(*) FROM locked),
    (SELECT v.began FROM fubd.coverage v)
