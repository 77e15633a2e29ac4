-- Whether a table of fubd, :relation, is there: the copy that the adoption made may be gone, and an older version lacks others.
SELECT to_regclass(:relation::text) IS NOT NULL AS is_there
