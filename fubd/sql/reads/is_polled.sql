-- Whether an instance holds the lease.
SELECT EXISTS (SELECT FROM fubd.lease l WHERE l.expires_at > now()) AS is_polled
