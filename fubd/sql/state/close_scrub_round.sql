-- Close the scrub round in progress once every person was verified after it began.
UPDATE fubd.scrub
SET last_ratio = matched::float8 / greatest(matched + mismatched, 1),
    last_people = matched + mismatched,
    last_finished = now(),
    round_began = (SELECT max(p.scrub_after) FROM fubd.person p WHERE p.gone_at IS NULL),
    matched = 0,
    mismatched = 0
WHERE matched + mismatched > 0
    AND NOT EXISTS (SELECT FROM fubd.person p WHERE p.gone_at IS NULL AND p.scrub_after <= fubd.scrub.round_began)
