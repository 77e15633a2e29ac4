-- Postpone refetch requests, counting the attempt.
UPDATE fubd.hint
SET attempts = attempts + 1, not_before = now() + make_interval(secs => :delay_seconds)
WHERE person_id = ANY(:person_ids::bigint[])
