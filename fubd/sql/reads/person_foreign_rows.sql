-- The rows of a person known only from an older script's table, as recording/load_history.sql returns them.
SELECT c.id, c.stage_from, CASE WHEN fubd.is_stage(c.stage_to) THEN c.stage_to ELSE '' END AS stage, c.changed_at::timestamptz AS changed_at,
    c.changed_after::timestamptz AS changed_after, fubd.source_of(c.source) AS source,
    coalesce(c.received_at, c.changed_at)::timestamptz AS received_at, c.confirmed_by, c.confirmed_at::timestamptz AS confirmed_at, c.event_id,
    c.first_name, c.last_name
FROM public.stage_changes c
WHERE c.person_id = :person_id::bigint::text AND c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01'
ORDER BY c.changed_at, c.id
LIMIT :limit
