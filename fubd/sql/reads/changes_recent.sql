-- The latest rows, newest first, for readers.
SELECT c.id, {shown} AS json
FROM public.stage_changes c
WHERE c.changed_at < '9000-01-01'
ORDER BY c.changed_at DESC, c.id DESC
LIMIT :limit
