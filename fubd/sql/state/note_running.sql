-- Note that this instance, started at :started_at, runs at :now, or stops then, and a time in which it could not record (:gap_began is null when
-- there is none).
WITH running AS (
    INSERT INTO fubd.process_run AS p (instance, started_at, alive_at, stopped_at)
    VALUES (:instance, :started_at, :now, CASE WHEN :is_stopping THEN :now::timestamptz END)
    ON CONFLICT (instance) DO UPDATE SET alive_at = excluded.alive_at, stopped_at = excluded.stopped_at
)
INSERT INTO fubd.recording_gap (instance, began_at, ended_at)
SELECT :instance, :gap_began::timestamptz, :gap_ended::timestamptz WHERE :gap_began::timestamptz IS NOT NULL
