-- Changes of stage that do not move `updated`: their claims are dated long before the change.

-- The event_id of a state claim ($1: person, $2: `updated`, $3: channel, $4: stage, $5: when it was read). The same state read again is the
-- same claim, whose event_id is empty. But where another stage was read in between, this is another stay in the stage, and a claim of its own.
-- A read within a quarter of an hour of the first read of that other stage may only be a list or a replica that trails: it is no other stay.
CREATE FUNCTION fubd.stay_id(person_id bigint, updated timestamptz, channel text, stage text, read_at timestamptz) RETURNS text
VOLATILE LANGUAGE plpgsql AS $$
DECLARE
    left_at timestamptz;
BEGIN
    SELECT max(coalesce(k.first_read_at, k.read_at)) INTO left_at
    FROM fubd.claim k
    WHERE k.person_id = $1 AND k.at = $2 AND k.kind = 'state' AND k.stage <> $4
        AND coalesce(k.first_read_at, k.read_at) < $5 - interval '15 minutes';
    IF left_at IS NULL THEN
        RETURN '';
    END IF;
    RETURN coalesce(
        (
            SELECT k.event_id FROM fubd.claim k
            WHERE k.person_id = $1 AND k.at = $2 AND k.kind = 'state' AND k.channel = $3 AND k.stage = $4
                AND coalesce(k.first_read_at, k.read_at) > left_at
            ORDER BY coalesce(k.first_read_at, k.read_at)
            LIMIT 1
        ),
        (
            SELECT format('read %s', extract(epoch FROM $5)::bigint) FROM fubd.claim k
            WHERE k.person_id = $1 AND k.at = $2 AND k.kind = 'state' AND k.channel = $3 AND k.event_id = '' AND k.stage = $4
        ),
        ''
    );
END
$$;

-- What stands near new claims of people ($1), for each from an instant ($2) on: the last settled row before it (the start), the rows and the
-- claims after that row, and the reads of the start's own second that show its stage, because they show until when it held. A foreign row
-- without a usable stage is no start; a foreign row without a usable instant is not loaded. $3: to how many characters the table cuts the
-- name of a stage. `kind` of a start is `announced` where a webhook reported that the person was created.
-- The statement that adds the claims calls it. VOLATILE: it sees what that statement has written, and what was committed while it waited for
-- its locks. PL/pgSQL keeps the plan. `IS TRUE` and the added interval of 0 keep the planner from the index by time, so that each person is
-- looked up by their own index. With statistics from when the tables were small it would read the whole table for each person.
CREATE OR REPLACE FUNCTION fubd.load_history(people bigint[], since timestamptz[], stage_length integer)
RETURNS TABLE (
    what text, person_id bigint, seq bigint, row_id bigint, kind text, channel text, event_id text, stage_from text, stage text, stage_id bigint,
    at timestamptz, after timestamptz, received_at timestamptz, confirmed_by text, confirmed_at timestamptz, read_at timestamptz,
    first_read_at timestamptz, covered timestamptz, created timestamptz, is_foreign boolean
) VOLATILE LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH start AS MATERIALIZED (
        SELECT n.person_id, s.id, s.stage_from, s.stage_to, s.changed_at, s.changed_after, s.source, s.received_at, s.confirmed_by,
            s.confirmed_at, s.event_id, p.announced
        FROM unnest($1, $2) AS n(person_id, since)
        JOIN fubd.person p ON p.id = n.person_id
        LEFT JOIN LATERAL (
            SELECT c.id::bigint AS id, c.stage_from::text AS stage_from, c.stage_to::text AS stage_to, c.changed_at::timestamptz AS changed_at, c.changed_after::timestamptz AS changed_after,
                fubd.source_of(c.source) AS source,
                (CASE WHEN c.received_at BETWEEN '1900-01-01' AND '9000-01-01' THEN c.received_at ELSE c.changed_at END)::timestamptz AS received_at,
                c.confirmed_by::text AS confirmed_by, c.confirmed_at::timestamptz AS confirmed_at, c.event_id::text AS event_id
            FROM public.stage_changes c
            WHERE c.person_id = n.person_id::text AND (c.changed_at < n.since AND c.changed_at > '1900-01-01') IS TRUE
                AND (fubd.is_stage(c.stage_to) OR EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = n.person_id AND coalesce(k.row_id, k.seq) = c.id))
                -- A row is not settled when an earlier claim has dated it back while the claim that it belongs to lies ahead, when a read made it
                -- and an entry of its stage follows that may yet explain the read, or when other stages were reported in its second too: a later
                -- read decides their order, unless another entry comes between.
                AND NOT EXISTS (
                    SELECT FROM fubd.claim k
                    WHERE k.person_id = n.person_id AND k.at >= date_trunc('second', c.changed_at)
                        AND ((coalesce(k.row_id, k.seq) = c.id AND k.at >= c.changed_at + interval '1 second')
                            OR (c.changed_after IS NOT NULL AND k.kind = 'entry' AND left(k.stage, $3) = c.stage_to
                                AND k.at < c.changed_at + interval '1 day')
                            OR (k.at < date_trunc('second', c.changed_at) + interval '1 second' AND left(k.stage, $3) <> c.stage_to AND NOT k.ignored))
                )
                -- Nor when the person was first read in another stage later although `updated` is from before it: that change lies at the read.
                AND NOT EXISTS (
                    SELECT FROM fubd.claim k JOIN fubd.claim o ON o.person_id = k.person_id AND o.at = k.at AND o.kind = 'state' AND o.stage <> k.stage
                    WHERE k.person_id = n.person_id AND k.at < c.changed_at AND k.kind = 'state'
                        AND coalesce(k.first_read_at, k.read_at) > c.changed_at
                )
            ORDER BY c.changed_at + interval '0' DESC, c.id DESC
            LIMIT 1
        ) s ON true
    )
    SELECT 'start' AS what, s.person_id, s.id AS seq, s.id AS row_id, CASE WHEN s.announced THEN 'announced' END AS kind,
        s.source AS channel, s.event_id, s.stage_from, s.stage_to AS stage,
        -- The id that the stage had then: its name may belong to another stage now. A read of the same move shows it; a webhook names no id.
        coalesce((
            SELECT k.stage_id FROM fubd.claim k
            WHERE k.person_id = s.person_id AND k.at >= date_trunc('second', s.changed_at) - interval '5 seconds'
                AND left(k.stage, $3) = s.stage_to AND k.stage_id IS NOT NULL
            ORDER BY k.kind = 'entry' OR k.at > s.changed_at + interval '5 seconds', k.at
            LIMIT 1
        ), g.id) AS stage_id, s.changed_at AS at, s.changed_after AS after,
        s.received_at, s.confirmed_by, s.confirmed_at,
        NULL::timestamptz AS read_at, NULL::timestamptz AS first_read_at, NULL::timestamptz AS covered, NULL::timestamptz AS created,
        NOT EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = s.person_id AND coalesce(k.row_id, k.seq) = s.id) AS is_foreign
    FROM start s
    LEFT JOIN fubd.stage g ON g.name = s.stage_to
    UNION ALL
    SELECT 'row', s.person_id, c.id::bigint, c.id::bigint, NULL, fubd.source_of(c.source), c.event_id::text, c.stage_from::text,
        CASE WHEN fubd.is_stage(c.stage_to) OR NOT f.is_foreign THEN c.stage_to::text ELSE '' END, g.id, c.changed_at::timestamptz,
        c.changed_after::timestamptz,
        (CASE WHEN c.received_at BETWEEN '1900-01-01' AND '9000-01-01' THEN c.received_at ELSE c.changed_at END)::timestamptz,
        c.confirmed_by::text, c.confirmed_at::timestamptz, NULL, NULL, NULL, NULL,
        f.is_foreign
    FROM start s
    JOIN public.stage_changes c ON c.person_id = s.person_id::text
        AND (c.changed_at > coalesce(s.changed_at, '1900-01-01') AND c.changed_at < '9000-01-01') IS TRUE
    CROSS JOIN LATERAL (
        SELECT NOT EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = s.person_id AND coalesce(k.row_id, k.seq) = c.id) AS is_foreign
    ) f
    LEFT JOIN fubd.stage g ON g.name = c.stage_to
    UNION ALL
    SELECT 'claim', s.person_id, k.seq, coalesce(k.row_id, k.seq), k.kind, k.channel, k.event_id, NULL, left(k.stage, $3),
        k.stage_id, k.at, NULL, k.received_at, NULL, NULL, k.read_at, coalesce(k.first_read_at, k.read_at), k.covered, k.created, false
    FROM start s
    JOIN fubd.claim k ON k.person_id = s.person_id AND k.at >= coalesce(date_trunc('second', s.changed_at), '-infinity') AND NOT k.ignored
        AND (s.changed_at IS NULL OR k.at > s.changed_at OR (k.kind = 'state' AND left(k.stage, $3) = s.stage_to));
END
$$;
