-- Whether the product table exists, and the table of migrations that fubd makes with its schema.
SELECT
    to_regclass('public.stage_changes') IS NOT NULL AS has_product_table,
    to_regclass('fubd.migration') IS NOT NULL AS has_migration_table
