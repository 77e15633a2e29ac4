-- After every migration: nothing of fubd's is open to the roles that a web client of the database bears, and views show no more than
-- their caller may see (PostgreSQL 14 knows no such views; there they are closed to all but their owner).
DO $$
DECLARE
    thing record;
    role_name name;
    adopted boolean := EXISTS (SELECT FROM fubd.adoption);
BEGIN
    FOR thing IN
        SELECT c.oid::regclass AS name, c.relkind AS kind
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE (n.nspname = 'fubd' AND c.relkind IN ('r', 'v', 'S'))
           OR (n.nspname = 'public' AND c.relname IN ('source_health', 'rapid_transitions', 'stage_durations', 'stage_changes_daily', 'current_stages'))
           OR (n.nspname = 'public' AND c.relname = 'stage_changes' AND NOT adopted)
           OR (n.nspname = 'public' AND c.relname = 'stage_changes_id_seq' AND NOT adopted)
    LOOP
        IF thing.kind = 'r' THEN
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', thing.name);
        ELSIF thing.kind = 'v' AND current_setting('server_version_num')::int >= 150000 THEN
            EXECUTE format('ALTER VIEW %s SET (security_invoker = true)', thing.name);
        END IF;
        EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC', CASE thing.kind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, thing.name);
        FOR role_name IN SELECT r.rolname FROM pg_roles r WHERE r.rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON %s %s FROM %I', CASE thing.kind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, thing.name, role_name);
        END LOOP;
    END LOOP;
    REVOKE ALL ON SCHEMA fubd FROM PUBLIC;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fubd FROM PUBLIC;
    FOR role_name IN SELECT r.rolname FROM pg_roles r WHERE r.rolname IN ('anon', 'authenticated') LOOP
        EXECUTE format('REVOKE ALL ON SCHEMA fubd FROM %I', role_name);
        EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fubd FROM %I', role_name);
    END LOOP;
END
$$;
