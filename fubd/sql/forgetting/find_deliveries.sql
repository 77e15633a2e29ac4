-- Deliveries whose bytes contain one of the ids, in the order of `id`. A page is as many ids long as it reads rows, found or not.
SELECT p.id, CASE WHEN EXISTS (SELECT FROM unnest(:needles::bytea[]) AS n(needle) WHERE position(n.needle IN p.body) > 0) THEN p.body END AS body
FROM (SELECT d.id, d.body FROM fubd.delivery d WHERE d.id > :after ORDER BY d.id LIMIT :limit) p
ORDER BY p.id
