-- The views that use these columns of the product table, directly or through one another; those to be dropped first come first.
WITH RECURSIVE dependent AS (
    SELECT r.ev_class AS view, 1 AS depth
    FROM pg_depend d
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.refobjid = to_regclass('public.stage_changes') AND a.attname = ANY(:columns::text[])
    UNION
    SELECT r.ev_class, s.depth + 1
    FROM dependent s
    JOIN pg_depend d ON d.refobjid = s.view AND d.refclassid = 'pg_class'::regclass
    JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND r.ev_class <> s.view
    WHERE s.depth < 20
)
SELECT
    s.view::regclass::text AS name,
    c.relkind::text AS kind,
    pg_get_viewdef(s.view) AS definition,
    coalesce(array_to_string(c.reloptions, ', '), '') AS options,
    pg_get_userbyid(c.relowner)::text AS owner,
    ARRAY(
        SELECT format('GRANT %s ON %s TO %s', string_agg(g.privilege_type, ', ' ORDER BY g.privilege_type), s.view::regclass,
            CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
        FROM aclexplode(c.relacl) g WHERE g.grantee <> c.relowner GROUP BY g.grantee ORDER BY g.grantee
    ) AS grants
FROM (SELECT t.view, max(t.depth) AS depth FROM dependent t GROUP BY t.view) s
JOIN pg_class c ON c.oid = s.view
ORDER BY s.depth DESC, 1
