-- Keep a change of mode and, where somebody listens ($6 is not null), the alert that tells of it.
WITH announced AS (
    INSERT INTO fubd.mode_change (at, mode, reason, delay_seconds, evidence) VALUES ($1, $2, $3, $4, $5::jsonb) RETURNING id
)
INSERT INTO fubd.alert (subject, told)
SELECT 0, $6::jsonb FROM announced WHERE $6::jsonb IS NOT NULL
