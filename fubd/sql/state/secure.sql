-- Runs after every migration: closes the objects of fubd's to the roles of a web client, `anon` and `authenticated`, and gives views their
-- caller's rights. PostgreSQL 14 has no such views; there they are closed to all but their owner. What was in public before the migration
-- (state/note_public_objects.sql) was closed when it was made: what its owner has granted since stays granted.
DO $$
DECLARE
    object record;
    role_name name;
    adopted boolean := EXISTS (SELECT FROM fubd.adoption);
BEGIN
    FOR object IN
        SELECT c.oid::regclass AS name, c.relkind AS kind,
            n.nspname = 'fubd' OR NOT c.oid::text = ANY(string_to_array(coalesce(current_setting('fubd.public_objects', true), ''), ',')) AS is_new
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE (n.nspname = 'fubd' AND c.relkind IN ('r', 'v', 'S'))
           OR (n.nspname = 'public' AND c.relname IN ('source_health', 'rapid_transitions', 'stage_durations', 'stage_changes_daily', 'current_stages'))
           OR (n.nspname = 'public' AND c.relname = 'stage_changes' AND NOT adopted)
           OR (n.nspname = 'public' AND c.relname = 'stage_changes_id_seq' AND NOT adopted)
    LOOP
        IF object.kind = 'r' THEN
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', object.name);
        ELSIF object.kind = 'v' AND current_setting('server_version_num')::int >= 150000 THEN
            EXECUTE format('ALTER VIEW %s SET (security_invoker = true)', object.name);
        END IF;
        CONTINUE WHEN NOT object.is_new;
        EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC', CASE object.kind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, object.name);
        FOR role_name IN SELECT r.rolname FROM pg_roles r WHERE r.rolname IN ('anon', 'authenticated') LOOP
            EXECUTE format('REVOKE ALL ON %s %s FROM %I', CASE object.kind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, object.name, role_name);
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
