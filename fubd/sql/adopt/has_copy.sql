-- Whether the copy that the adoption made, :relation, is still there.
SELECT to_regclass(:relation::text) IS NOT NULL AS has_copy
