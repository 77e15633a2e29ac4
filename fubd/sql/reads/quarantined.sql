-- Quarantined deliveries by id.
SELECT d.id, d.key, d.body, d.received_at, d.quarantine
FROM fubd.delivery d
WHERE d.quarantine IS NOT NULL AND d.id > :after
ORDER BY d.id
LIMIT :limit
