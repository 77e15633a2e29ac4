-- The rows of the dry run's person that have the number of a claim, as our rows must.
SELECT c.stage_from, c.stage_to, fubd.instant(c.changed_at) AS changed_at, fubd.source_of(c.source) AS source, c.confirmed_by
FROM public.stage_changes c
JOIN fubd.claim k ON k.seq = c.id AND k.person_id = :person_id
WHERE c.person_id = :person_id::bigint::text
ORDER BY c.changed_at
