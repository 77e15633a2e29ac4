-- How many rows of the table fubd recorded.
SELECT count(*) AS rows FROM public.stage_changes c WHERE c.id IN (SELECT coalesce(k.row_id, k.seq) FROM fubd.claim k)
