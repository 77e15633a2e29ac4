-- Which rows were corrected since, by whichever process: what is noted after $1, oldest first.
SELECT k.id, k.change_id
FROM fubd.correction k
WHERE k.id > $1::bigint AND k.became IS NOT NULL
ORDER BY k.id
LIMIT $2
