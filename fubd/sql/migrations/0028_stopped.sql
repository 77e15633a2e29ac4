-- Whether a process ended in good order. One that was killed, or that had lost the database when it ended, may have sent an alert that nothing
-- is recorded, and the next process has to send that this is over.
ALTER TABLE fubd.process_run ADD COLUMN stopped_at timestamptz;
COMMENT ON COLUMN fubd.process_run.stopped_at IS 'When it stopped in good order. Null: it runs, was killed, or had lost the database when it ended.';
