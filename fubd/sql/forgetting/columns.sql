-- The columns of a table of stage changes that can be emptied, with the SQL of the value that does so: its default or an empty text where it
-- must not be null, and null where there is none. Instants stay, and what is computed from other columns follows them.
SELECT a.attname::text AS name,
    CASE
        WHEN NOT a.attnotnull THEN 'NULL'
        WHEN d.adbin IS NOT NULL THEN pg_get_expr(d.adbin, d.adrelid)
        WHEN t.typcategory = 'S' THEN '''''::' || format_type(a.atttypid, a.atttypmod)
    END AS empty
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(:relation::text) AND a.attnum > 0 AND NOT a.attisdropped
    AND a.attgenerated = '' AND a.attidentity = ''
    AND a.atttypid NOT IN ('timestamp'::regtype, 'timestamptz'::regtype)
ORDER BY a.attnum
