-- The mode in force, with its hysteresis (`relapses` is null where a version before that saved none).
SELECT mode, reason, delay_seconds, at, proven_at, missed, heard_again_at, relapses
FROM fubd.mode_change
ORDER BY id DESC
LIMIT 1
