-- The triggers of the table's owner that may drop rows, by name.
SELECT t.tgname::text AS name FROM pg_trigger t
WHERE t.tgrelid = 'public.stage_changes'::regclass AND NOT t.tgisinternal AND t.tgenabled <> 'D'
ORDER BY t.tgname
