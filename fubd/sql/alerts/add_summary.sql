-- Put the summary of a day into the outbox, unless the day has one.
WITH marked AS (
    INSERT INTO fubd.daily_summary (day) VALUES (:day) ON CONFLICT DO NOTHING RETURNING day
), pruned AS (
    DELETE FROM fubd.daily_summary s WHERE s.day < :day::date - 30
)
INSERT INTO fubd.alert (subject, told) SELECT -1, :content::jsonb FROM marked
