-- A page of rows by id, for readers: those after :after, up to the safe id (reads/safe_id.sql).
SELECT c.id, {shown} AS json
FROM public.stage_changes c
WHERE c.id > :after::bigint AND c.id <= :safe_id::bigint
ORDER BY c.id
LIMIT :limit
