-- Keep how the present mode goes on, and count the changes ($6) that webhooks missed in it, once for all.
WITH counted AS (
    DELETE FROM fubd.unconfirmed u WHERE u.change_id = ANY($6::bigint[])
)
UPDATE fubd.mode_change m
SET delay_seconds = $1, proven_at = $2, missed = $3, heard_again_at = $4, relapses = $5
WHERE m.id = (SELECT max(l.id) FROM fubd.mode_change l)
