-- Add to the counts of the scrub round in progress.
UPDATE fubd.scrub
SET round_began = coalesce(round_began, (SELECT max(p.scrub_after) FROM fubd.person p WHERE p.gone_at IS NULL)),
    matched = matched + :matched,
    mismatched = mismatched + :mismatched
