-- Write the difference. Each part is empty when there is nothing of its kind.
-- What stands in braces is written as its column takes it; an older table's may be short, or of another type (`fubd.store.stage_changes`).
WITH joined AS (
    DELETE FROM public.stage_changes c WHERE c.id = ANY($1::bigint[])
), forgotten AS (
    DELETE FROM fubd.unconfirmed u WHERE u.change_id = ANY($2::bigint[])
), corrected AS (
    UPDATE public.stage_changes c
    SET stage_from = {stage_from: u.stage_from}, stage_to = {stage_to: u.stage_to}, changed_at = {changed_at: u.changed_at},
        changed_after = {changed_after: u.changed_after}, confirmed_by = {confirmed_by: u.confirmed_by},
        confirmed_at = {confirmed_at: u.confirmed_at}, event_id = {event_id: u.event_id},
        raw_payload = coalesce({raw_payload: u.raw_payload}, c.raw_payload)
    FROM unnest(
        $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[], $9::text[], $10::timestamptz[], $11::text[],
        $12::jsonb[]
    ) AS u(id, person_id, stage_from, stage_to, changed_at, changed_after, confirmed_by, confirmed_at, event_id, raw_payload)
    -- A row that no claim of ours made belongs to another writer and is never touched.
    WHERE c.id = u.id AND EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = u.person_id AND coalesce(k.row_id, k.seq) = c.id)
), noted AS (
    INSERT INTO fubd.correction (change_id, person_id, corrected_at, was, became)
    SELECT * FROM unnest($13::bigint[], $14::bigint[], $15::timestamptz[], $16::jsonb[], $17::jsonb[])
), withdrawn AS (
    -- Of a row that was joined to another nothing is told any more: the other has its own alert.
    DELETE FROM fubd.alert a
    USING unnest($13::bigint[], $14::bigint[], $17::jsonb[]) AS n(change_id, person_id, became)
    WHERE n.became IS NULL AND a.subject = n.person_id AND (a.told->>'change_id')::bigint = n.change_id
), made AS (
    SELECT * FROM unnest(
        $18::bigint[], $19::bigint[], $20::text[], $21::text[], $22::timestamptz[], $23::timestamptz[], $24::timestamptz[], $25::text[],
        $26::text[], $27::timestamptz[], $28::text[], $29::jsonb[]
    ) AS n(id, person_id, stage_from, stage_to, changed_at, changed_after, received_at, source, confirmed_by, confirmed_at, event_id, raw_payload)
), recorded AS (
    INSERT INTO public.stage_changes
        (id, person_id, stage_from, stage_to, changed_at, changed_after, received_at, source, confirmed_by, confirmed_at, event_id, raw_payload,
        first_name, last_name, assigned_user_id, assigned_user_name, lead_source_tag{insert_columns})
    OVERRIDING SYSTEM VALUE
    SELECT n.id, n.person_id::text, {stage_from: n.stage_from}, {stage_to: n.stage_to}, {changed_at: n.changed_at},
        {changed_after: n.changed_after}, {new received_at: n.received_at}, {source: n.source}, {confirmed_by: n.confirmed_by},
        {confirmed_at: n.confirmed_at}, {event_id: n.event_id}, {new raw_payload: n.raw_payload}, {new first_name: p.first_name},
        {new last_name: p.last_name}, {new assigned_user_id: p.assigned_user_id}, {new assigned_user_name: p.assigned_user_name},
        {new lead_source_tag: p.lead_source_tag}{insert_values}
    FROM made n JOIN fubd.person p ON p.id = n.person_id
    ORDER BY n.id
), awaiting AS (
    INSERT INTO fubd.unconfirmed (change_id, changed_at)
    SELECT n.id, n.changed_at FROM made n
    -- Webhooks did not miss what happened before we watched.
    WHERE n.source = 'polling' AND n.confirmed_by IS NULL AND n.changed_at >= coalesce((SELECT v.began FROM fubd.coverage v), '-infinity')
    ON CONFLICT (change_id) DO NOTHING
), relinked AS (
    UPDATE fubd.claim k SET row_id = l.row_id
    FROM unnest($30::bigint[], $31::bigint[], $32::bigint[]) AS l(person_id, seq, row_id)
    WHERE k.person_id = l.person_id AND k.seq = l.seq
), alerted AS (
    -- $36: the stages that somebody wants to be told of. People are locked, so the ids of one person's alerts grow as their rows are made.
    INSERT INTO fubd.alert (subject, told)
    SELECT n.person_id, jsonb_build_object('kind', 'stage', 'change_id', n.id, 'person_id', n.person_id::text, 'stage_from', n.stage_from,
        'stage_to', n.stage_to, 'changed_at', n.changed_at, 'changed_after', n.changed_after, 'source', n.source)
    FROM made n WHERE n.stage_to = ANY($36::text[])
    ORDER BY n.person_id, n.changed_at
), announced AS (
    UPDATE fubd.person p SET announced = true
    FROM unnest($33::bigint[], $38::boolean[]) AS t(person_id, created)
    WHERE t.created AND p.id = t.person_id AND NOT p.announced
), expected AS (
    -- A poll was first to read them; webhooks were only later, and missed nothing.
    DELETE FROM fubd.unconfirmed u
    USING unnest($33::bigint[], $38::boolean[]) AS t(person_id, created), public.stage_changes c
    WHERE t.created AND c.person_id = t.person_id::text AND c.stage_from IS NULL AND u.change_id = c.id
)
INSERT INTO fubd.hint AS h (person_id, since, asked_at, deleted)
SELECT t.person_id, t.since, t.asked_at, t.deleted
FROM unnest($33::bigint[], $34::timestamptz[], $35::timestamptz[], $37::boolean[]) AS t(person_id, since, asked_at, deleted)
ON CONFLICT (person_id) DO UPDATE
    SET since = greatest(h.since, excluded.since), not_before = '-infinity', deleted = h.deleted OR excluded.deleted
