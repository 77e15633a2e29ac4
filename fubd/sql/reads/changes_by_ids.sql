-- These rows, for readers.
SELECT c.id, {shown} AS json
FROM public.stage_changes c
WHERE c.id = ANY($1::bigint[])
ORDER BY c.id
