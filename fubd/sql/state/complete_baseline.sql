-- The first baseline counts as the first complete scrub round: everyone verified is as recorded. With nobody verified there is no round.
UPDATE fubd.scrub
SET last_ratio = 1, last_finished = now(), last_people = verified.people
FROM (SELECT count(*) AS people FROM fubd.person p WHERE p.verified_at IS NOT NULL AND p.gone_at IS NULL) verified
WHERE last_ratio IS NULL AND verified.people > 0
