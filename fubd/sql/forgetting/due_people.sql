-- People that Follow Up Boss confirmed deleted at least so long ago and who are not forgotten yet.
SELECT p.id FROM fubd.person p
WHERE p.gone_at < now() - make_interval(secs => :older_than_days::float8 * 86400)
    AND NOT EXISTS (SELECT FROM fubd.forgotten f WHERE f.person_id = p.id)
ORDER BY p.gone_at
LIMIT :limit
