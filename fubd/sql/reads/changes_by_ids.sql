-- The rows with these ids, for readers.
SELECT c.id, {shown} AS json
FROM public.stage_changes c
WHERE c.id = ANY(:ids::bigint[])
ORDER BY c.id
