-- The id of the newest correction.
SELECT coalesce(max(k.id), 0) AS id FROM fubd.correction k
