-- Known people by id, without those who are gone and those whose stage is not known yet.
SELECT p.id FROM fubd.person p WHERE p.id > :after AND p.gone_at IS NULL AND p.stage IS NOT NULL ORDER BY p.id LIMIT :limit
