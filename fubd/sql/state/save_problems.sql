-- Save the problems that hold, remove those that ended, and put their alerts into the outbox, all at once: each is announced once.
WITH removed AS (
    DELETE FROM fubd.problem p WHERE p.problem = ANY(:ended::text[])
), saved AS (
    INSERT INTO fubd.problem (problem, instance, since, text, announced, reported_at)
    SELECT n.problem, :instance, n.since, n.text, n.announced, now()
    FROM unnest(:problem::text[], :since::timestamptz[], :text::text[], :announced::boolean[]) AS n(problem, since, text, announced)
    ON CONFLICT (problem) DO UPDATE SET
        instance = excluded.instance, since = excluded.since, text = excluded.text, announced = excluded.announced,
        reported_at = excluded.reported_at
)
INSERT INTO fubd.alert (subject, told)
SELECT 0, a.document FROM unnest(:alerts::jsonb[]) WITH ORDINALITY AS a(document, place) ORDER BY a.place
