-- Begin a poll run.
INSERT INTO fubd.poll_run (kind, started_at) VALUES (:kind, :started_at) RETURNING id
