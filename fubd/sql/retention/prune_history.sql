-- Remove at most :limit poll runs, mode changes, corrections and times of processes each, oldest first, and return the most that was removed of one kind.
-- The last complete poll stays, and the mode in force at that time with every later one: status, the page and the views read them.
WITH horizon AS (
    SELECT now() - make_interval(secs => :older_than_days::float8 * 86400) AS history,
        now() - make_interval(secs => greatest(:older_than_days::float8, :least_days::float8) * 86400) AS operation
), old_runs AS (
    SELECT r.id FROM fubd.poll_run r, horizon h
    WHERE r.started_at < h.operation AND coalesce(r.finished_at, r.started_at) < h.operation AND r.id IS DISTINCT FROM (
        SELECT l.id FROM fubd.poll_run l WHERE l.outcome = 'ok' AND l.kind <> 'scrub' ORDER BY l.finished_at DESC LIMIT 1
    )
    ORDER BY r.id LIMIT :limit
), old_modes AS (
    SELECT m.id FROM fubd.mode_change m, horizon h
    WHERE m.id < (SELECT max(f.id) FROM fubd.mode_change f WHERE f.at < h.operation)
    ORDER BY m.id LIMIT :limit
), old_corrections AS (
    SELECT k.id FROM fubd.correction k, horizon h WHERE k.corrected_at < h.history ORDER BY k.id LIMIT :limit
), old_processes AS (
    SELECT p.instance FROM fubd.process_run p, horizon h WHERE p.alive_at < h.operation ORDER BY p.alive_at LIMIT :limit
), old_gaps AS (
    SELECT g.id FROM fubd.recording_gap g, horizon h WHERE g.ended_at < h.operation ORDER BY g.ended_at LIMIT :limit
), runs AS (
    DELETE FROM fubd.poll_run r USING old_runs o WHERE r.id = o.id RETURNING r.id
), modes AS (
    DELETE FROM fubd.mode_change m USING old_modes o WHERE m.id = o.id RETURNING m.id
), corrections AS (
    DELETE FROM fubd.correction k USING old_corrections o WHERE k.id = o.id RETURNING k.id
), processes AS (
    DELETE FROM fubd.process_run p USING old_processes o WHERE p.instance = o.instance RETURNING p.instance
), gaps AS (
    DELETE FROM fubd.recording_gap g USING old_gaps o WHERE g.id = o.id RETURNING g.id
)
SELECT greatest(
    (SELECT count(*) FROM runs), (SELECT count(*) FROM modes), (SELECT count(*) FROM corrections), (SELECT count(*) FROM processes),
    (SELECT count(*) FROM gaps)
) AS removed
