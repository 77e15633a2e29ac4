-- Rows by id, for readers who page.
SELECT to_jsonb(c) - 'raw_payload' AS change
FROM public.stage_changes c
WHERE c.id > $1
ORDER BY c.id
LIMIT $2
