-- Close the scrub round in progress once every person was verified, or put off, after it began. Somebody verified twice in it counts once.
UPDATE fubd.scrub
SET last_ratio = (verified.people - least(mismatched, verified.people))::float8 / greatest(verified.people, 1),
    last_people = verified.people,
    last_finished = now(),
    round_began = verified.newest,
    matched = 0,
    mismatched = 0
FROM (
    SELECT count(*) FILTER (WHERE p.verified_at > s.round_began) AS people, max(p.scrub_after) AS newest
    FROM fubd.scrub s LEFT JOIN fubd.person p ON p.gone_at IS NULL
) verified
WHERE matched + mismatched > 0
    AND NOT EXISTS (SELECT FROM fubd.person p WHERE p.gone_at IS NULL AND p.scrub_after <= fubd.scrub.round_began)
