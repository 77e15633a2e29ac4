-- Begin a poll run.
INSERT INTO fubd.poll_run (kind, started_at, next_within_seconds) VALUES (:kind, :started_at, :next_within_seconds) RETURNING id
