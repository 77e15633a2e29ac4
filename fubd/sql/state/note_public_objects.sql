-- Note, until the transaction ends, which tables, views and sequences there are in public before a migration.
SELECT set_config('fubd.public_objects', coalesce(string_agg(c.oid::text, ','), ''), true)
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'S')
