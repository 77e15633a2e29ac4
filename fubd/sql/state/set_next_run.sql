-- Save within how many seconds the run after this one is to follow.
UPDATE fubd.poll_run SET next_within_seconds = :seconds WHERE id = :run_id
