-- The columns of the product table as information_schema describes them. `sql_type` is the type as a cast names it.
SELECT
    i.column_name::text AS name, i.data_type::text AS type, i.udt_name::text AS udt, i.character_maximum_length::int AS length,
    i.datetime_precision::int AS precision, i.is_nullable = 'NO' AS required, i.column_default::text AS default,
    i.is_identity = 'YES' AS identity, i.is_generated <> 'NEVER' AS generated, i.domain_name IS NOT NULL AS domain,
    format_type(a.atttypid, a.atttypmod) AS sql_type
FROM information_schema.columns i
JOIN pg_attribute a ON a.attrelid = to_regclass('public.stage_changes') AND a.attname = i.column_name AND NOT a.attisdropped
WHERE i.table_schema = 'public' AND i.table_name = 'stage_changes'
ORDER BY i.ordinal_position
