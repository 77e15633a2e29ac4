-- Within how many seconds another poll was to follow, where that is not for the mode in force to say: a recovery run promises none (0).
ALTER TABLE fubd.poll_run ADD COLUMN next_within_seconds double precision CHECK (next_within_seconds >= 0);
