-- How many rows the table holds.
SELECT count(*) AS rows FROM public.stage_changes
