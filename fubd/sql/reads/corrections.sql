-- The rows that any process corrected, or merged into another row, after the correction :after, oldest correction first.
SELECT k.id, k.change_id
FROM fubd.correction k
WHERE k.id > :after::bigint
ORDER BY k.id
LIMIT :limit
