-- Remove the alerts that were taken ($1), and put off the others ($2) by so many seconds ($3).
WITH sent AS (
    DELETE FROM fubd.alert a WHERE a.id = ANY($1::bigint[])
)
UPDATE fubd.alert a SET due_at = now() + make_interval(secs => l.delay)
FROM unnest($2::bigint[], $3::float8[]) AS l(id, delay)
WHERE a.id = l.id
