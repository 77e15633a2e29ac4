-- The latest rows before row :before (all of them when it is null), newest first, for readers. A filter that is null leaves nothing out.
SELECT c.id, {shown} AS json
FROM public.stage_changes c
WHERE c.changed_at < '9000-01-01'
    AND (:before::bigint IS NULL OR (c.changed_at, c.id) < (SELECT b.changed_at, b.id FROM public.stage_changes b WHERE b.id = :before))
    AND (:stage::text IS NULL OR c.stage_to = :stage)
    AND (:agent::text IS NULL OR c.assigned_user_name = :agent)
    AND (:source::text IS NULL OR fubd.source_of(c.source) = :source)
ORDER BY c.changed_at DESC, c.id DESC
LIMIT :limit
