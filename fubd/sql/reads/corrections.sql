-- The rows that any process corrected after the correction :after, oldest correction first.
SELECT k.id, k.change_id
FROM fubd.correction k
WHERE k.id > :after::bigint AND k.became IS NOT NULL
ORDER BY k.id
LIMIT :limit
