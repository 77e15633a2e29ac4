-- The first baseline counts as the first complete scrub round: every person was read, and is as recorded.
UPDATE fubd.scrub
SET last_ratio = 1, last_finished = now(), last_people = (SELECT count(*) FROM fubd.person)
WHERE last_ratio IS NULL
