-- The names of the agents of people with changes since :since.
SELECT DISTINCT c.assigned_user_name AS agent
FROM public.stage_changes c
WHERE c.changed_at >= :since::timestamptz AND c.changed_at < '9000-01-01' AND c.assigned_user_name IS NOT NULL
ORDER BY 1
LIMIT 500
