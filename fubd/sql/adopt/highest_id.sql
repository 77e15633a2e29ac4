-- The highest id, of a table whose ids are numbers.
SELECT max(c.id)::bigint AS id FROM public.stage_changes c
