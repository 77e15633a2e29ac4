-- Rows of ours whose stage_from is not the stage_to of the row before, or that enter the stage they leave. Must be none.
SELECT count(*) AS broken
FROM (
    SELECT c.id, c.person_id, c.stage_from, c.stage_to,
        lag(c.stage_to) OVER person AS before, lag(c.id) OVER person AS before_id
    FROM public.stage_changes c
    WINDOW person AS (PARTITION BY c.person_id ORDER BY c.changed_at, c.id)
) r
WHERE r.before_id IS NOT NULL AND (r.stage_from IS DISTINCT FROM r.before OR r.stage_to = r.before)
    AND EXISTS (SELECT FROM fubd.claim k WHERE k.person_id::text = r.person_id AND coalesce(k.row_id, k.seq) = r.id)
