-- The columns of a table of stage changes, with the SQL of the empty value of each that cannot be null.
SELECT a.attname::text AS name,
    CASE WHEN NOT a.attnotnull THEN 'NULL' ELSE coalesce(pg_get_expr(d.adbin, d.adrelid), '''''::' || format_type(a.atttypid, a.atttypmod)) END AS empty
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(:relation::text) AND a.attnum > 0 AND NOT a.attisdropped
