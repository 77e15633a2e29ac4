-- The newest change and the newest correction, after which the people touched are checked.
SELECT (SELECT coalesce(max(c.id), 0) FROM public.stage_changes c) AS change, (SELECT coalesce(max(k.id), 0) FROM fubd.correction k) AS correction
