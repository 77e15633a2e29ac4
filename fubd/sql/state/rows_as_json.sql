-- The rows of one statement, which may write, as one JSON array.
WITH rows AS (
{query}
)
SELECT coalesce(json_agg(to_json(rows)), '[]') FROM rows
