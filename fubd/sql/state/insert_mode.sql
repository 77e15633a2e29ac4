-- Keep a change of mode and, where somebody listens ($10 is not null), the alert that tells of it. The changes that proved it ($11) are
-- counted with it, once for all.
WITH announced AS (
    INSERT INTO fubd.mode_change (at, mode, reason, delay_seconds, proven_at, missed, heard_again_at, relapses, evidence)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb) RETURNING id
), counted AS (
    DELETE FROM fubd.unconfirmed u WHERE u.change_id = ANY($11::bigint[])
)
INSERT INTO fubd.alert (subject, told)
SELECT 0, $10::jsonb FROM announced WHERE $10::jsonb IS NOT NULL
