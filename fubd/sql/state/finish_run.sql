-- Save how a poll run ended.
UPDATE fubd.poll_run
SET outcome = :outcome, finished_at = :finished_at, people = :people, calls = :calls, changes = :changes, note = :note
WHERE id = :run_id
RETURNING id
