-- Known people in the order of the scrub's queue.
SELECT p.id FROM fubd.person p WHERE p.gone_at IS NULL ORDER BY p.scrub_after, p.id LIMIT :limit
