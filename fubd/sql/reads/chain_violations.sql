-- Find our rows whose stage_from is not the stage_to of the row before, or that enter the stage they leave: there must be none. Looks at the
-- people with rows after :after_change, those with corrections after :after_correction, those of :again, and in turn at some of the others:
-- those after :after_person. Returns up to where it came; `last_person` is null after the last one.
-- A row of another writer that names no stage, or has no usable instant, does not count as the row before. The claims of a row are looked for row
-- by row: as an EXISTS, the planner would join them all to many new rows of which it has no statistics yet.
WITH added AS MATERIALIZED (
    SELECT c.id, c.person_id::text AS person_id FROM public.stage_changes c WHERE c.id > :after_change::bigint ORDER BY c.id LIMIT 2000
), corrected AS MATERIALIZED (
    SELECT k.id, k.person_id::text AS person_id FROM fubd.correction k WHERE k.id > :after_correction::bigint ORDER BY k.id LIMIT 2000
), next AS MATERIALIZED (
    SELECT c.person_id::text AS person_id FROM public.stage_changes c WHERE c.person_id > :after_person::text ORDER BY c.person_id LIMIT 2000
), people AS (
    SELECT a.person_id FROM added a
    UNION SELECT c.person_id FROM corrected c
    UNION SELECT n.person_id FROM next n
    UNION SELECT unnest(:again::text[])
), violating AS MATERIALIZED (
    SELECT p.person_id, count(*) AS rows
    FROM people p
    CROSS JOIN LATERAL (
        SELECT c.id, c.stage_from, c.stage_to, lag(c.stage_to) OVER earlier AS before, lag(c.id) OVER earlier AS before_id
        FROM public.stage_changes c
        WHERE c.person_id = p.person_id
            AND ((fubd.is_stage(c.stage_to) AND c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01') OR EXISTS (
                SELECT FROM fubd.claim k
                WHERE k.person_id = CASE WHEN c.person_id ~ '^[0-9]{1,18}$' THEN c.person_id::bigint END AND coalesce(k.row_id, k.seq) = c.id
            ))
        WINDOW earlier AS (ORDER BY c.changed_at, c.id)
    ) r
    WHERE r.before_id IS NOT NULL AND (r.stage_from IS DISTINCT FROM r.before OR r.stage_to = r.before)
        AND (
            SELECT true FROM fubd.claim k
            WHERE k.person_id = CASE WHEN p.person_id ~ '^[0-9]{1,18}$' THEN p.person_id::bigint END AND coalesce(k.row_id, k.seq) = r.id
            LIMIT 1
        )
    GROUP BY p.person_id
    LIMIT 1000
)
SELECT
    greatest(:after_change::bigint, (SELECT max(a.id) FROM added a)) AS last_change,
    greatest(:after_correction::bigint, (SELECT max(c.id) FROM corrected c)) AS last_correction,
    (SELECT n.person_id FROM next n OFFSET 1999) AS last_person,
    (SELECT array_agg(v.person_id) FROM violating v) AS people,
    (SELECT coalesce(sum(v.rows), 0)::bigint FROM violating v) AS violations
