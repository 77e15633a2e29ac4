-- Known people after $1 by id, those who are gone and those of whom nothing is known yet left out.
SELECT p.id FROM fubd.person p WHERE p.id > $1 AND p.gone_at IS NULL AND p.stage IS NOT NULL ORDER BY p.id LIMIT $2
