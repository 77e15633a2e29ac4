-- The indexes of the product table. `keys` are columns, null for an expression. `release_statements` remove what depends on the index;
-- `restore_statements` give an index made again under its name the comments and the clustering of this one.
SELECT
    c.relname::text AS name,
    pg_get_indexdef(i.indexrelid) AS definition,
    (SELECT pg_get_constraintdef(x.oid) FROM pg_constraint x WHERE x.conindid = i.indexrelid AND x.contype IN ('u', 'p', 'x') LIMIT 1) AS constraint_definition,
    i.indisunique AS is_unique,
    i.indisprimary AS is_primary,
    i.indpred IS NOT NULL AS partial,
    a.amname = 'btree' AND i.indisvalid AS is_btree,
    -- PostgreSQL 14 does not have this column.
    coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_equal,
    ARRAY(
        SELECT t.attname::text
        FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(number, place)
        LEFT JOIN pg_attribute t ON t.attrelid = i.indrelid AND t.attnum = k.number AND k.number > 0
        WHERE k.place <= i.indnkeyatts
        ORDER BY k.place
    ) AS keys,
    ARRAY(
        SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', x.conrelid::regclass, x.conname)
        FROM pg_constraint x WHERE x.conindid = i.indexrelid AND x.contype = 'f'
        UNION ALL
        SELECT 'ALTER TABLE public.stage_changes REPLICA IDENTITY DEFAULT' WHERE i.indisreplident
    ) AS release_statements,
    ARRAY(
        SELECT format('COMMENT ON INDEX public.%I IS %L', c.relname, d.description)
        FROM pg_description d WHERE d.objoid = i.indexrelid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
        UNION ALL
        SELECT format('COMMENT ON CONSTRAINT %I ON public.stage_changes IS %L', x.conname, d.description)
        FROM pg_constraint x JOIN pg_description d ON d.objoid = x.oid AND d.classoid = 'pg_constraint'::regclass
        WHERE x.conindid = i.indexrelid AND x.contype IN ('u', 'p', 'x')
        UNION ALL
        SELECT format('ALTER TABLE public.stage_changes CLUSTER ON %I', c.relname) WHERE i.indisclustered
    ) AS restore_statements
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = to_regclass('public.stage_changes')
ORDER BY c.relname
