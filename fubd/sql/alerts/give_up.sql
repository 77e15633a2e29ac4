-- Remove the alerts that could not be sent for so long, and count the messages they would have been.
WITH removed AS (
    DELETE FROM fubd.alert a WHERE a.made_at < now() - make_interval(secs => :older_than_days::float8 * 86400) RETURNING a.id, a.digest
)
SELECT count(DISTINCT coalesce(r.digest, -r.id)) AS alerts FROM removed r
