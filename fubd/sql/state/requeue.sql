-- Put people at the end of the scrub's queue.
UPDATE fubd.person
SET scrub_after = (SELECT max(p.scrub_after) FROM fubd.person p WHERE p.gone_at IS NULL)
WHERE id = ANY(:person_ids::bigint[])
