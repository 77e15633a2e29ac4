-- Creates a role that can do what fubd does and nothing else. Run it once, as the owner of the database (on Supabase: in the SQL editor),
-- before the first start or later. On Supabase's pooler its user name is fubd_daemon.<project-ref>.
--
-- Nobody can log in with it until it has a password of yours: ALTER ROLE fubd_daemon LOGIN PASSWORD '...';

CREATE ROLE fubd_daemon NOLOGIN CONNECTION LIMIT 20;

-- The user who runs this can still read and change everything that the role owns.
GRANT fubd_daemon TO CURRENT_USER;

-- It creates the schema fubd, and in public the table stage_changes with its views. It cannot read or write tables of other roles.
DO $$
BEGIN
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO fubd_daemon', current_database());
END
$$;
GRANT USAGE, CREATE ON SCHEMA public TO fubd_daemon;

-- Where stage_changes already exists: to adopt it, the role must own it, and older views with the same names as fubd's. The former owner is
-- a member of the role and keeps every right, so all other views and the older scripts keep working.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'stage_changes', 'source_health', 'rapid_transitions', 'stage_durations', 'stage_changes_daily', 'current_stages'
    ]
    LOOP
        IF to_regclass('public.' || name) IS NOT NULL THEN
            EXECUTE format('ALTER TABLE public.%I OWNER TO fubd_daemon', name);
        END IF;
    END LOOP;
END
$$;

-- Where fubd was first started as another user, such as the owner: what it made in the schema fubd goes over to the role as well.
DO $$
DECLARE
    name text;
BEGIN
    IF to_regnamespace('fubd') IS NULL THEN
        RETURN;
    END IF;
    ALTER SCHEMA fubd OWNER TO fubd_daemon;
    FOR name IN SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'fubd'::regnamespace AND c.relkind IN ('r', 'v') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO fubd_daemon', name);
    END LOOP;
    FOR name IN SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'fubd'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO fubd_daemon', name);
    END LOOP;
END
$$;
