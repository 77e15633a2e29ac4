-- The objects of fubd, and the product table with its views, that a web client of the database can reach: by the roles `anon` and
-- `authenticated`. A table under row level security is reachable if a policy admits the role; a view that reads with its owner's rights is
-- reachable by the roles it is granted to. `holders` are the roles to revoke from; if there are none, the roles are members of the owner.
WITH RECURSIVE dependent AS (
    SELECT c.oid FROM pg_class c WHERE c.oid = to_regclass('public.stage_changes')
    UNION
    SELECT r.ev_class
    FROM dependent s
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite r ON r.oid = d.objid
), object AS (
    SELECT c.oid, c.relname, c.relkind, c.relrowsecurity, c.relacl, c.relowner, n.oid AS schema, n.nspname AS schema_name,
        coalesce('security_invoker=true' = ANY(c.reloptions) OR 'security_invoker=on' = ANY(c.reloptions), false) AS invoker
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND (n.nspname = 'fubd' OR c.oid IN (SELECT s.oid FROM dependent s) OR EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjid = to_regclass('public.stage_changes')
            AND c.relkind = 'S'
    ))
), web AS (
    SELECT r.oid, r.rolname FROM pg_roles r WHERE r.rolname IN ('anon', 'authenticated')
)
SELECT
    format('%I.%I', t.schema_name, t.relname) AS name,
    CASE t.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' ELSE 'table' END AS kind,
    array_agg(DISTINCT w.rolname::text ORDER BY w.rolname::text) AS roles,
    ARRAY(
        SELECT DISTINCT CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END
        FROM (
            SELECT x.grantee
            FROM aclexplode(coalesce(t.relacl, acldefault(CASE t.relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, t.relowner))) x
            UNION ALL
            SELECT x.grantee FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) x WHERE a.attrelid = t.oid AND NOT a.attisdropped
        ) g
        WHERE g.grantee = 0 OR (g.grantee <> t.relowner AND EXISTS (SELECT FROM web x WHERE pg_has_role(x.oid, g.grantee, 'USAGE')))
        ORDER BY 1
    ) AS holders,
    quote_ident(pg_get_userbyid(t.relowner)) AS owner
FROM object t CROSS JOIN web w
WHERE has_schema_privilege(w.oid, t.schema, 'USAGE')
    AND CASE t.relkind
        WHEN 'S' THEN has_sequence_privilege(w.oid, t.oid, 'USAGE, SELECT, UPDATE')
        ELSE has_table_privilege(w.oid, t.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(w.oid, t.oid, 'SELECT, INSERT, UPDATE')
    END
    AND NOT (t.relkind = 'v' AND t.invoker)
    AND NOT (t.relkind IN ('r', 'p') AND t.relrowsecurity AND NOT EXISTS (
        SELECT FROM pg_policy p
        WHERE p.polrelid = t.oid AND (0 = ANY(p.polroles) OR EXISTS (SELECT FROM unnest(p.polroles) m WHERE m <> 0 AND pg_has_role(w.oid, m, 'USAGE')))
    ))
GROUP BY t.oid, t.schema_name, t.relname, t.relkind, t.relacl, t.relowner
ORDER BY t.relkind IN ('r', 'p') DESC, 1
