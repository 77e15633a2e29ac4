-- Remember that these people are forgotten, and lock them, so that no transaction records them in between. Returns those who were known.
WITH known AS MATERIALIZED (
    SELECT p.id FROM fubd.person p WHERE p.id = ANY(:people::bigint[]) ORDER BY p.id FOR NO KEY UPDATE
), others AS (
    -- A table that was adopted has rows of people that no source reported since.
    SELECT w.id FROM unnest(:people::bigint[]) AS w(id)
    WHERE EXISTS (SELECT FROM public.stage_changes c WHERE c.person_id = w.id::text) AND NOT EXISTS (SELECT FROM known WHERE known.id = w.id)
), inserted AS (
    INSERT INTO fubd.forgotten (person_id) SELECT known.id FROM known UNION SELECT others.id FROM others
    ON CONFLICT (person_id) DO NOTHING
)
SELECT known.id FROM known UNION SELECT others.id FROM others
