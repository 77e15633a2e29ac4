-- Known people, chosen at random.
SELECT p.id FROM fubd.person p WHERE p.gone_at IS NULL AND p.stage IS NOT NULL ORDER BY random() LIMIT :number
