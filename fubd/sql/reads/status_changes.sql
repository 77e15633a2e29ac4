-- The latest rows, newest first, each as JSON without its evidence. Instants of an older table are without a zone, in UTC.
SELECT to_jsonb(c) - 'raw_payload' AS shown
FROM public.stage_changes c
WHERE c.changed_at < '9000-01-01'
ORDER BY c.changed_at DESC, c.id DESC
LIMIT :limit
