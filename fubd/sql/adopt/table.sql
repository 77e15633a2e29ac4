-- The table at public.stage_changes, and whether we may take it over. No row where there is none. :view_names are the names of fubd's own
-- views, :other_names are others that it may need in the schema public.
SELECT
    c.relkind::text AS kind,
    pg_size_pretty(pg_table_size(c.oid)) AS size,
    quote_ident(pg_get_userbyid(c.relowner)) AS owner,
    quote_ident(current_user) AS user,
    quote_ident(current_database()) AS database,
    pg_has_role(c.relowner, 'USAGE') AS may_alter,
    row_security_active(c.oid) AS rows_hidden,
    EXISTS (SELECT FROM pg_inherits h WHERE c.oid IN (h.inhparent, h.inhrelid)) AS inherits,
    has_schema_privilege('public', 'CREATE') AS may_create_views,
    has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
    coalesce(has_schema_privilege(to_regnamespace('fubd'), 'CREATE'), true) AS may_use_schema,
    current_setting('server_version_num')::int / 10000 AS version,
    to_regclass('fubd.migration') IS NOT NULL AS has_fubd_schema,
    EXISTS (SELECT FROM pg_class o WHERE o.relnamespace = to_regnamespace('fubd'))
        OR EXISTS (SELECT FROM pg_proc o WHERE o.pronamespace = to_regnamespace('fubd')) AS foreign_schema,
    ARRAY(SELECT x.conname::text FROM pg_constraint x WHERE x.conrelid = c.oid AND x.contype = 'x' ORDER BY 1) AS exclusions,
    ARRAY(SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' ORDER BY 1) AS triggers,
    ARRAY(SELECT r.rulename::text FROM pg_rewrite r WHERE r.ev_class = c.oid ORDER BY 1) AS rules,
    ARRAY(
        SELECT v.relname::text FROM pg_class v
        WHERE v.relnamespace = 'public'::regnamespace AND v.relname = ANY(:view_names::text[]) AND v.relkind = 'v' ORDER BY 1
    ) AS older_views,
    ARRAY(
        SELECT v.relname::text FROM pg_class v
        WHERE v.relnamespace = 'public'::regnamespace AND v.relname = ANY(:view_names::text[]) AND v.relkind <> 'v' ORDER BY 1
    ) AS taken_names,
    ARRAY(SELECT o.relname::text FROM pg_class o WHERE o.relnamespace = 'public'::regnamespace AND o.relname = ANY(:other_names::text[]) ORDER BY 1) AS other_taken_names,
    q.sequence::regclass::text AS sequence,
    coalesce(has_sequence_privilege(q.sequence, 'USAGE') AND has_sequence_privilege(q.sequence, 'UPDATE'), false) AS may_use_sequence,
    p.seqincrement AS increment,
    -- How many numbers are left, by the sequence and the type of `id`.
    least(p.seqmax, CASE q.type WHEN 'int4'::regtype THEN 2147483647 ELSE p.seqmax END) - CASE
        WHEN has_sequence_privilege(q.sequence, 'USAGE') THEN coalesce(pg_sequence_last_value(q.sequence), p.seqstart) ELSE 0
    END AS numbers_left
FROM pg_class c
-- The sequence of `id`: that of an identity column depends on the column; of any other column the default depends on the sequence.
LEFT JOIN LATERAL (
    SELECT d.sequence, a.atttypid AS type
    FROM pg_attribute a
    CROSS JOIN LATERAL (
        SELECT i.objid AS sequence FROM pg_depend i
        WHERE i.classid = 'pg_class'::regclass AND i.refclassid = 'pg_class'::regclass AND i.refobjid = c.oid
            AND i.refobjsubid = a.attnum AND i.deptype = 'i'
        UNION ALL
        SELECT i.refobjid FROM pg_attrdef f
        JOIN pg_depend i ON i.classid = 'pg_attrdef'::regclass AND i.objid = f.oid AND i.refclassid = 'pg_class'::regclass
        WHERE f.adrelid = c.oid AND f.adnum = a.attnum
    ) d
    JOIN pg_class s ON s.oid = d.sequence AND s.relkind = 'S'
    WHERE a.attrelid = c.oid AND a.attname = 'id' AND NOT a.attisdropped
    LIMIT 1
) q ON true
LEFT JOIN pg_sequence p ON p.seqrelid = q.sequence
WHERE c.oid = to_regclass('public.stage_changes')
