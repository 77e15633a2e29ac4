-- Rows by id, for readers who page: those after $1, up to $2 (reads/safe_id.sql).
SELECT c.id, {shown} AS json
FROM public.stage_changes c
WHERE c.id > $1::bigint AND c.id <= $2::bigint
ORDER BY c.id
LIMIT $3
