-- Save how the mode in force goes on, and count the changes that webhooks missed in it, so that no later call counts them again.
WITH counted AS (
    DELETE FROM fubd.unconfirmed u WHERE u.change_id = ANY(:missed_changes::bigint[])
)
UPDATE fubd.mode_change m
SET reason = :reason, delay_seconds = :delay_seconds, proven_at = :proven_at, missed = :missed, heard_again_at = :heard_again_at,
    relapses = :relapses
WHERE m.id = (SELECT max(l.id) FROM fubd.mode_change l)
