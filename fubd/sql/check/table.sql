-- What decides whether the product table takes rows, as far as its definition says. `required`: columns that have to be given a value, unless a
-- trigger of the owner's may give it. `lacking`: what the user may not do. `rows_refused`: row level security applies to the user, and no
-- policy admits rows. `denied_sequence`: the sequence that ids are drawn from, if the user may not. `is_behind`: one of the next ids of the sequence that ids are drawn from is taken; false while none was drawn yet.
WITH sequence AS (
    SELECT d.refobjid AS oid, CASE WHEN has_sequence_privilege(d.refobjid, 'USAGE') THEN pg_sequence_last_value(d.refobjid) END AS last_drawn
    FROM pg_depend d
    JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
    JOIN pg_class s ON d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
    WHERE a.adrelid = to_regclass('fubd.claim')
)
SELECT
    a.columns, a.types, coalesce(a.generated, '{}') AS generated,
    CASE
        WHEN EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgtype & 7 = 7) THEN '{}'
        ELSE coalesce(a.required, '{}')
    END AS required,
    ARRAY(
        SELECT r.rulename::text FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled <> 'D' ORDER BY r.rulename
    ) AS rules,
    array_remove(ARRAY[
        CASE WHEN NOT has_any_column_privilege(c.oid, 'INSERT') THEN 'INSERT' END,
        CASE WHEN NOT has_any_column_privilege(c.oid, 'UPDATE') THEN 'UPDATE' END,
        CASE WHEN NOT has_table_privilege(c.oid, 'DELETE') THEN 'DELETE' END
    ], NULL) AS lacking,
    row_security_active(c.oid) AND NOT EXISTS (
        SELECT FROM pg_policy p
        WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('*', 'a')
            AND (0 = ANY(p.polroles) OR EXISTS (SELECT FROM unnest(p.polroles) r WHERE r <> 0 AND pg_has_role(r, 'USAGE')))
    ) AS rows_refused,
    quote_ident(current_user) AS user_name,
    coalesce((SELECT pg_has_role(x.relowner, 'USAGE') FROM pg_class x WHERE x.oid = c.oid), false) AS is_owner,
    (
        SELECT q.oid::regclass::text FROM sequence q
        WHERE NOT has_sequence_privilege(q.oid, 'USAGE') OR NOT has_sequence_privilege(q.oid, 'SELECT')
    ) AS denied_sequence,
    (SELECT q.last_drawn FROM sequence q) AS last_drawn,
    EXISTS (SELECT FROM sequence q JOIN public.stage_changes x ON x.id > q.last_drawn AND x.id <= least(q.last_drawn, 9223372036854775797) + 10) AS is_behind
FROM (SELECT to_regclass('public.stage_changes') AS oid) c CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{}') AS columns,
        -- A session may quote all names, also those of types.
        coalesce(array_agg(replace(format_type(a.atttypid, a.atttypmod), '"', '') ORDER BY a.attnum), '{}') AS types,
        array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated <> '') AS generated,
        array_agg(a.attname::text ORDER BY a.attnum)
            FILTER (WHERE a.attnotnull AND NOT a.atthasdef AND a.attidentity = '') AS required
    FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) a
