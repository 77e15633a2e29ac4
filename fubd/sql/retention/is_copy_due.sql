-- Whether the copy that the adoption made, in :relation, is there and was made so long ago.
SELECT EXISTS (
    SELECT FROM fubd.adoption a
    WHERE a.adopted_at < now() - make_interval(secs => :older_than_days::float8 * 86400) AND to_regclass(:relation::text) IS NOT NULL
) AS is_due
