-- Whether a column holds any value. {column} is its quoted name.
SELECT EXISTS (SELECT FROM public.stage_changes c WHERE c.{column} IS NOT NULL) AS is_filled
