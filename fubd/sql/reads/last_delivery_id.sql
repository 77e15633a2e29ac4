-- The id of the newest delivery.
SELECT coalesce(max(d.id), 0) AS id FROM fubd.delivery d
