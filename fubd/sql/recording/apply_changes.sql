-- Write the difference: a JSON object whose parts are empty when there is nothing of their kind. Fails unless all rows of stage_changes were
-- really inserted, updated and deleted: a trigger of the table's owner may drop some.
-- A value in braces is written as its column takes it: an older table's column may be shorter, or of another type
-- (`fubd.store.stage_changes`).
WITH given AS MATERIALIZED (
    SELECT g.* FROM jsonb_to_record({document}) AS g(
        now timestamptz, alert_stages text[], alert_since timestamptz, merged bigint[], confirmed bigint[], updates jsonb, corrections jsonb,
        new_rows jsonb, relinked jsonb, refetches jsonb
    )
), merged AS (
    DELETE FROM public.stage_changes c WHERE c.id = ANY((SELECT g.merged FROM given g)::bigint[]) RETURNING c.id
), confirmed AS (
    DELETE FROM fubd.unconfirmed u WHERE u.change_id = ANY((SELECT g.confirmed FROM given g)::bigint[])
), given_corrections AS (
    SELECT n.* FROM given g CROSS JOIN LATERAL jsonb_to_recordset(g.corrections) AS n(change_id bigint, person_id bigint, was jsonb, became jsonb)
), given_refetches AS (
    SELECT n.*
    FROM given g
    CROSS JOIN LATERAL jsonb_to_recordset(g.refetches)
        AS n(person_id bigint, since timestamptz, asked_at timestamptz, deleted boolean, created boolean)
), updated AS (
    UPDATE public.stage_changes c
    SET stage_from = {stage_from: u.stage_from}, stage_to = {stage_to: u.stage_to}, changed_at = {changed_at: u.changed_at},
        changed_after = {changed_after: u.changed_after}, confirmed_by = {confirmed_by: u.confirmed_by},
        confirmed_at = {confirmed_at: u.confirmed_at}, event_id = {event_id: u.event_id},
        raw_payload = coalesce({raw_payload: CASE WHEN f.person_id IS NULL THEN u.raw_payload::jsonb END}, c.raw_payload)
    FROM given g
    CROSS JOIN LATERAL jsonb_to_recordset(g.updates) AS u(
        id bigint, person_id bigint, stage_from text, stage_to text, changed_at timestamptz, changed_after timestamptz, confirmed_by text,
        confirmed_at timestamptz, event_id text, raw_payload text
    )
    LEFT JOIN fubd.forgotten f ON f.person_id = u.person_id
    -- A row that no claim of ours made belongs to another writer and is never changed.
    WHERE c.id = u.id AND EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = u.person_id AND coalesce(k.row_id, k.seq) = c.id)
    RETURNING c.id, u.person_id
), corrections AS (
    INSERT INTO fubd.correction (change_id, person_id, corrected_at, was, became)
    SELECT n.change_id, n.person_id, g.now, n.was, n.became FROM given_corrections n CROSS JOIN given g
), withdrawn_alerts AS (
    -- A row that was merged into another sends no alert any more: the other has its own.
    DELETE FROM fubd.alert a
    USING given_corrections n
    WHERE n.became IS NULL AND a.subject = n.person_id AND (a.told->>'change_id')::bigint = n.change_id
), new_rows AS (
    SELECT n.id, n.person_id, n.stage_from, n.stage_to, n.changed_at, n.changed_after, n.received_at, n.source, n.confirmed_by, n.confirmed_at,
        n.event_id, CASE WHEN f.person_id IS NULL THEN n.raw_payload::jsonb END AS raw_payload
    FROM given g
    CROSS JOIN LATERAL jsonb_to_recordset(g.new_rows) AS n(
        id bigint, person_id bigint, stage_from text, stage_to text, changed_at timestamptz, changed_after timestamptz, received_at timestamptz,
        source text, confirmed_by text, confirmed_at timestamptz, event_id text, raw_payload text
    )
    LEFT JOIN fubd.forgotten f ON f.person_id = n.person_id
), inserted AS (
    INSERT INTO public.stage_changes
        (id, person_id, stage_from, stage_to, changed_at, changed_after, received_at, source, confirmed_by, confirmed_at, event_id, raw_payload,
        first_name, last_name, assigned_user_id, assigned_user_name, lead_source_tag{insert_columns})
    OVERRIDING SYSTEM VALUE
    SELECT n.id, n.person_id::text, {stage_from: n.stage_from}, {stage_to: n.stage_to}, {changed_at: n.changed_at},
        {changed_after: n.changed_after}, {new received_at: n.received_at}, {source: n.source}, {confirmed_by: n.confirmed_by},
        {confirmed_at: n.confirmed_at}, {event_id: n.event_id}, {new raw_payload: n.raw_payload}, {new first_name: p.first_name},
        {new last_name: p.last_name}, {new assigned_user_id: p.assigned_user_id}, {new assigned_user_name: p.assigned_user_name},
        {new lead_source_tag: p.lead_source_tag}{insert_values}
    FROM new_rows n JOIN fubd.person p ON p.id = n.person_id
    ORDER BY n.id
    RETURNING id
), unconfirmed AS (
    INSERT INTO fubd.unconfirmed (change_id, changed_at)
    SELECT n.id, n.changed_at FROM new_rows n
    -- Webhooks did not miss what happened before we began to watch, nor a merge, which moves people to Trash without a stage webhook.
    WHERE n.source = 'polling' AND n.confirmed_by IS NULL AND n.stage_to <> 'Trash'
        AND n.changed_at >= coalesce((SELECT v.began FROM fubd.coverage v), '-infinity')
    ON CONFLICT (change_id) DO NOTHING
), relinked AS (
    UPDATE fubd.claim k SET row_id = l.row_id
    FROM given g CROSS JOIN LATERAL jsonb_to_recordset(g.relinked) AS l(person_id bigint, seq bigint, row_id bigint)
    WHERE k.person_id = l.person_id AND k.seq = l.seq
    RETURNING k.seq
), alerts AS (
    -- People are locked, so the ids of one person's alerts increase in the order of their rows.
    INSERT INTO fubd.alert (subject, told, digest)
    SELECT n.person_id, jsonb_build_object('kind', 'stage', 'change_id', n.id, 'person_id', n.person_id::text, 'stage_from', n.stage_from,
        'stage_to', n.stage_to, 'changed_at', n.changed_at, 'changed_after', n.changed_after, 'source', n.source),
        -- More than five of one transaction are one message.
        CASE WHEN count(*) OVER () > 5 THEN min(n.id) OVER () END
    FROM new_rows n CROSS JOIN given g
    -- Nothing of the past: no old change, and nothing that the first complete read, of a baseline or after adoption, finds, nor the first read
    -- of a person that it left out.
    WHERE lower(n.stage_to) = ANY(g.alert_stages) AND n.changed_at >= g.alert_since
        AND (n.source = 'webhook' OR (SELECT v.reached FROM fubd.coverage v) IS NOT NULL AND (
            n.stage_from IS NULL OR EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = n.person_id AND k.seq < n.id)
        ))
    ORDER BY n.person_id, n.changed_at
), announced AS (
    UPDATE fubd.person p SET announced = true
    FROM given_refetches t
    WHERE t.created AND p.id = t.person_id AND NOT p.announced
), announced_rows AS (
    -- A poll read these people first; the webhook came later, but missed nothing.
    DELETE FROM fubd.unconfirmed u
    USING given_refetches t
    -- OFFSET 0 keeps the planner on the person's index, however old its statistics are.
    CROSS JOIN LATERAL (
        SELECT c.id FROM public.stage_changes c WHERE c.person_id = t.person_id::text AND c.stage_from IS NULL OFFSET 0
    ) first_row
    WHERE t.created AND u.change_id = first_row.id
), refetches AS (
    INSERT INTO fubd.hint AS h (person_id, since, asked_at, deleted)
    SELECT t.person_id, t.since, t.asked_at, t.deleted FROM given_refetches t
    ON CONFLICT (person_id) DO UPDATE
        SET since = greatest(h.since, excluded.since), not_before = '-infinity', deleted = h.deleted OR excluded.deleted
), counted AS (
    SELECT (SELECT count(*) FROM inserted) AS inserted, (SELECT count(*) FROM updated) AS updated, (SELECT count(*) FROM merged) AS merged,
        (SELECT count(*) FROM relinked) AS relinked
)
SELECT
    fubd.require_all_written(
        ARRAY[jsonb_array_length(g.new_rows), jsonb_array_length(g.updates), cardinality(g.merged)]::bigint[],
        ARRAY[c.inserted, c.updated, c.merged]
    ),
    -- Null on a table without such columns: then the function is not called. A row is known to be ours by its claim, so after `relinked`.
    fubd.run_after(c.inserted + c.updated + c.merged + c.relinked,
        ARRAY(SELECT n.person_id FROM new_rows n UNION ALL SELECT u.person_id FROM updated u UNION ALL SELECT n.person_id FROM given_corrections n),
        {update_derived})
FROM given g CROSS JOIN counted c
