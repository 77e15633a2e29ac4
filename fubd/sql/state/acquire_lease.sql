-- Take or renew the lease, by the database's clock. A new holder gets a new token; no row while another holds it.
INSERT INTO fubd.lease AS l (name, holder, token, expires_at)
VALUES (:name, :holder, 1, clock_timestamp() + make_interval(secs => :ttl_seconds))
ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder,
        expires_at = excluded.expires_at,
        token = l.token + CASE WHEN l.holder = excluded.holder THEN 0 ELSE 1 END
    WHERE l.holder = excluded.holder OR l.expires_at < clock_timestamp()
RETURNING token
