-- Our rows whose stage_from is not the stage_to of the row before, or that enter the stage they leave. There must be none.
-- A row of another writer that names no stage, or has no usable instant, does not count as the row before.
SELECT count(*) AS violations
FROM (
    SELECT c.id, c.person_id, c.stage_from, c.stage_to,
        lag(c.stage_to) OVER person AS before, lag(c.id) OVER person AS before_id
    FROM public.stage_changes c
    WHERE (fubd.is_stage(c.stage_to) AND c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01') OR EXISTS (
        SELECT FROM fubd.claim k
        WHERE k.person_id = CASE WHEN c.person_id ~ '^[0-9]{1,18}$' THEN c.person_id::bigint END AND coalesce(k.row_id, k.seq) = c.id
    )
    WINDOW person AS (PARTITION BY c.person_id ORDER BY c.changed_at, c.id)
) r
WHERE r.before_id IS NOT NULL AND (r.stage_from IS DISTINCT FROM r.before OR r.stage_to = r.before)
    AND EXISTS (
        SELECT FROM fubd.claim k
        WHERE k.person_id = CASE WHEN r.person_id ~ '^[0-9]{1,18}$' THEN r.person_id::bigint END AND coalesce(k.row_id, k.seq) = r.id
    )
