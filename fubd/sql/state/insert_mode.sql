-- Save a change of mode and, unless :alert is null, the alert about it. The missed changes that proved it are counted here, so that no
-- later mode change counts them again.
WITH inserted AS (
    INSERT INTO fubd.mode_change (at, mode, reason, delay_seconds, proven_at, missed, heard_again_at, relapses, evidence)
    VALUES (:at, :mode, :reason, :delay_seconds, :proven_at, :missed, :heard_again_at, :relapses, :evidence::jsonb)
    RETURNING id
), counted AS (
    DELETE FROM fubd.unconfirmed u WHERE u.change_id = ANY(:missed_changes::bigint[])
)
INSERT INTO fubd.alert (subject, told)
SELECT 0, :alert::jsonb FROM inserted WHERE :alert::jsonb IS NOT NULL
