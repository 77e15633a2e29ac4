-- The indexes of the product table. `keys` are columns, null for an expression; `held_by` is what else leans on the index.
SELECT
    c.relname::text AS name,
    pg_get_indexdef(i.indexrelid) AS definition,
    (SELECT pg_get_constraintdef(x.oid) FROM pg_constraint x WHERE x.conindid = i.indexrelid AND x.contype IN ('u', 'p', 'x') LIMIT 1) AS constraint_definition,
    i.indisunique AS is_unique,
    i.indisprimary AS is_primary,
    i.indpred IS NOT NULL AS partial,
    a.amname = 'btree' AND i.indisvalid AS sorted,
    -- PostgreSQL 14 does not know it.
    coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_equal,
    ARRAY(
        SELECT t.attname::text
        FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(number, place)
        LEFT JOIN pg_attribute t ON t.attrelid = i.indrelid AND t.attnum = k.number AND k.number > 0
        WHERE k.place <= i.indnkeyatts
        ORDER BY k.place
    ) AS keys,
    ARRAY(
        SELECT 'the foreign key ' || x.conname FROM pg_constraint x WHERE x.conindid = i.indexrelid AND x.contype = 'f'
        UNION ALL
        SELECT 'replication' WHERE i.indisreplident
    ) AS held_by
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid = to_regclass('public.stage_changes')
ORDER BY c.relname
