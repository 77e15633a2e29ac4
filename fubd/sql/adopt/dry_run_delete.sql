-- Remove the rows of the dry run's person.
DELETE FROM public.stage_changes c WHERE c.person_id = :person_id::bigint::text
