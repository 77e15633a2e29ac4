-- Whether an instance holds the lease, by the clock of the moment.
SELECT EXISTS (SELECT FROM fubd.lease l WHERE l.expires_at > clock_timestamp()) AS is_running
