-- What the server computes for each row of stage_changes: constraints, generated columns, defaults of columns that fubd does not fill, and the
-- expressions of indexes; each with the statement that removes it. `filled`: the columns that fubd fills.
SELECT 'the constraint ' || k.conname AS what, format('ALTER TABLE public.stage_changes DROP CONSTRAINT %I', k.conname) AS cure,
    pg_get_expr(k.conbin, k.conrelid) AS expression
FROM pg_constraint k
WHERE k.conrelid = to_regclass('public.stage_changes') AND k.contype = 'c'
UNION ALL
SELECT CASE a.attgenerated WHEN '' THEN 'the default of the column ' ELSE 'the generated column ' END || a.attname,
    format(
        'ALTER TABLE public.stage_changes ALTER COLUMN %I DROP %s', a.attname, CASE a.attgenerated WHEN '' THEN 'DEFAULT' ELSE 'EXPRESSION' END
    ),
    pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute a
JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass('public.stage_changes') AND NOT a.attisdropped AND a.attname <> ALL(:filled::text[])
UNION ALL
SELECT 'the index ' || c.relname, format('DROP INDEX public.%I', c.relname), e.expression
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
CROSS JOIN LATERAL (VALUES (pg_get_expr(i.indexprs, i.indrelid)), (pg_get_expr(i.indpred, i.indrelid))) AS e (expression)
WHERE i.indrelid = to_regclass('public.stage_changes') AND e.expression IS NOT NULL
ORDER BY 1
