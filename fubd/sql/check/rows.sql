-- The highest id of the table, null when it is empty, and the names of the account's stages, as far as they are known.
SELECT (SELECT max(c.id) FROM public.stage_changes c) AS highest_id, ARRAY(SELECT g.name FROM fubd.stage g ORDER BY g.name) AS stages
