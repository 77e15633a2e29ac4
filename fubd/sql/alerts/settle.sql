-- Remove the alerts that were sent, and postpone the others.
WITH removed AS (
    DELETE FROM fubd.alert a WHERE a.id = ANY(:sent::bigint[])
)
UPDATE fubd.alert a SET due_at = now() + make_interval(secs => l.delay)
FROM unnest(:postponed::bigint[], :delays::float8[]) AS l(id, delay)
WHERE a.id = l.id
