-- Every column, index, constraint, view, comment and privilege of a database, a line each.
SELECT format('%s.%s.%s %s %s %s %s', table_schema, table_name, column_name, data_type, character_maximum_length, is_nullable, column_default) AS line
FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema')
UNION ALL
SELECT indexdef FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'pg_toast')
UNION ALL
SELECT format('%s %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT format('%s %s', viewname, definition) FROM pg_views WHERE schemaname = 'public'
UNION ALL
SELECT format('%s %s', relname, relacl) FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT format('%s %s %s', objoid::regclass, objsubid, description) FROM pg_description WHERE classoid = 'pg_class'::regclass
UNION ALL
SELECT format('%s %s', c.conname, d.description) FROM pg_description d JOIN pg_constraint c ON c.oid = d.objoid WHERE d.classoid = 'pg_constraint'::regclass
UNION ALL
SELECT format('%s clustered', indexrelid::regclass) FROM pg_index WHERE indisclustered
UNION ALL
SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_'
ORDER BY 1
