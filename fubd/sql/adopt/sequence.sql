-- The sequence from which claims, and with them the ids of rows, are drawn.
SELECT d.refobjid::regclass::text AS sequence
FROM pg_depend d
JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
JOIN pg_class s ON d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
WHERE a.adrelid = 'fubd.claim'::regclass
