-- What kind of database this is, and what we may do in it.
SELECT
    current_setting('server_version_num')::int / 10000 AS version,
    coalesce((SELECT s.ssl FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()), false) AS encrypted,
    pg_is_in_recovery() AS is_standby,
    pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only,
    to_regclass('fubd.migration') IS NOT NULL AS has_migration_table,
    coalesce(row_security_active(to_regclass('fubd.migration')::oid), false) AS is_hidden,
    to_regclass('public.stage_changes') IS NOT NULL AS has_product_table,
    has_schema_privilege('public', 'CREATE')
        AND coalesce(has_schema_privilege(to_regnamespace('fubd'), 'CREATE'), has_database_privilege(current_database(), 'CREATE')) AS may_create
