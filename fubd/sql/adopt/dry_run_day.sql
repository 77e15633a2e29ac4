-- The day of the dry run's rows: the last whole one, since a constraint of the owner's may refuse what is old.
SELECT date_trunc('day', now(), 'UTC') - interval '1 day' AS day
