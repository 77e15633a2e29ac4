-- Remove the alerts that could not be sent for so long.
WITH removed AS (
    DELETE FROM fubd.alert a WHERE a.made_at < now() - make_interval(secs => :older_than_days::float8 * 86400) RETURNING a.id
)
SELECT count(*) AS alerts FROM removed
