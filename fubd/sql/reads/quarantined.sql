-- Quarantined deliveries after $1, by id.
SELECT d.id, d.key, d.body, d.received_at, d.quarantine FROM fubd.delivery d WHERE d.quarantine IS NOT NULL AND d.id > $1 ORDER BY d.id LIMIT $2
