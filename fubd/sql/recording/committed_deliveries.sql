-- Which of these deliveries this process stored since `received_at`.
SELECT d.key FROM fubd.delivery d WHERE d.key = ANY(:keys::bytea[]) AND d.instance = :instance AND d.received_at >= :received_at
