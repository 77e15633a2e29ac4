-- Unique indexes and exclusion constraints of stage_changes that may refuse a genuine row. One cannot where the row's own id is among the keys,
-- or a column that stays null, as nothing fills it. `filled`: the columns that fubd fills.
SELECT
    CASE WHEN i.indisexclusion THEN 'the exclusion constraint ' ELSE 'the unique index ' END || c.relname AS what,
    quote_ident(c.relname) AS quoted,
    (SELECT string_agg(pg_get_indexdef(i.indexrelid, k.place, true), ', ' ORDER BY k.place) FROM generate_series(1, i.indnkeyatts::int) k (place)) AS keys
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass('public.stage_changes') AND (i.indisunique OR i.indisexclusion) AND NOT i.indisprimary
    AND (i.indisexclusion OR NOT EXISTS (
        SELECT
        FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number > 0
        WHERE k.place <= i.indnkeyatts AND (
            a.attname = 'id'
            OR a.attname <> ALL(:filled::text[]) AND NOT a.atthasdef AND NOT coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
        )
    ))
ORDER BY c.relname
