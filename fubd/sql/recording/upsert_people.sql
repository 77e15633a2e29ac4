-- Store people as just read, learn the names of stages and answer the refetch requests: rows made since the person was asked for are filled.
-- Braces are as in recording/apply_changes.sql. Of forgotten people no name and no custom field is stored.
WITH given AS (
    SELECT * FROM jsonb_to_recordset({document}) AS r(
        id bigint, stage text, stage_id bigint, created timestamptz, updated timestamptz, read_at timestamptz, first_name text, last_name text,
        assigned_user_id text, assigned_user_name text, lead_source_tag text, fields jsonb
    )
), read AS (
    SELECT g.id, g.stage, g.stage_id, g.created, g.updated, g.read_at, g.assigned_user_id, g.assigned_user_name, g.lead_source_tag,
        CASE WHEN f.person_id IS NULL THEN g.first_name END AS first_name, CASE WHEN f.person_id IS NULL THEN g.last_name END AS last_name,
        CASE WHEN f.person_id IS NULL THEN g.fields ELSE '{}' END AS fields
    FROM given g LEFT JOIN fubd.forgotten f ON f.person_id = g.id
), former_stages AS (
    INSERT INTO fubd.former_stage AS f (name, id, until)
    SELECT g.name, g.id, min(r.read_at) FROM read r JOIN fubd.stage g ON g.name = r.stage WHERE g.id <> r.stage_id GROUP BY g.name, g.id
    ON CONFLICT (name, id) DO UPDATE SET until = excluded.until
), stage_names AS (
    INSERT INTO fubd.stage AS g (name, id)
    SELECT DISTINCT ON (r.stage) r.stage, r.stage_id FROM read r WHERE r.stage_id IS NOT NULL ORDER BY r.stage, r.updated DESC
    ON CONFLICT (name) DO UPDATE SET id = excluded.id WHERE g.id <> excluded.id
), updated_people AS (
    UPDATE fubd.person p
    SET stage = r.stage, stage_id = r.stage_id, created = coalesce(r.created, p.created), updated = r.updated, first_name = r.first_name,
        last_name = r.last_name, assigned_user_id = r.assigned_user_id, assigned_user_name = r.assigned_user_name,
        lead_source_tag = r.lead_source_tag, fields = r.fields, gone_at = NULL,
        verified_at = greatest(p.verified_at, r.read_at), scrub_after = greatest(p.verified_at, r.read_at)
    FROM read r
    WHERE p.id = r.id AND (p.updated IS NULL OR (r.updated, r.read_at) >= (p.updated, coalesce(p.verified_at, '-infinity')))
), older_reads AS (
    -- A read older than what is known (a replica lags, or a clock was set back) verifies nothing, but lets the scrub go on to the next people.
    UPDATE fubd.person p SET scrub_after = greatest(p.scrub_after, r.read_at)
    FROM read r
    WHERE p.id = r.id AND (r.updated, r.read_at) < (p.updated, coalesce(p.verified_at, '-infinity'))
), answered_requests AS (
    DELETE FROM fubd.hint h USING read r WHERE h.person_id = r.id AND r.read_at >= h.since
    RETURNING h.person_id, h.asked_at, r.first_name, r.last_name, r.assigned_user_id, r.assigned_user_name, r.lead_source_tag, r.fields
), filled AS (
    UPDATE public.stage_changes c
    SET first_name = coalesce({first_name: r.first_name}, c.first_name), last_name = coalesce({last_name: r.last_name}, c.last_name),
        assigned_user_id = coalesce({assigned_user_id: r.assigned_user_id}, c.assigned_user_id),
        assigned_user_name = coalesce({assigned_user_name: r.assigned_user_name}, c.assigned_user_name),
        lead_source_tag = coalesce({lead_source_tag: r.lead_source_tag}, c.lead_source_tag){fill_columns}
    FROM answered_requests r
    -- OFFSET 0 and `IS TRUE` keep the planner on the person's index, however old its statistics are. Rows of other writers stay as they are.
    CROSS JOIN LATERAL (
        SELECT o.id, to_jsonb(o) - 'raw_payload' AS was FROM public.stage_changes o
        WHERE o.person_id = r.person_id::text AND (o.received_at >= r.asked_at) IS TRUE
            AND EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = r.person_id AND coalesce(k.row_id, k.seq) = o.id)
        OFFSET 0
    ) own
    WHERE c.id = own.id
    RETURNING c.id, r.person_id, to_jsonb(c) - 'raw_payload' IS DISTINCT FROM own.was AS is_new
)
-- Those who follow the event stream are sent such rows again, in any process: a correction that corrects nothing of the change itself.
INSERT INTO fubd.correction (change_id, person_id, corrected_at, was, became)
SELECT f.id, f.person_id, now(), '{}', '{}' FROM filled f WHERE f.is_new
