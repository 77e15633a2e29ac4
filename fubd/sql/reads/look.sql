-- What the daemon looks at every few seconds, in one statement: the summary, and the definition of the product table as JSON.
SELECT s.*, row_to_json(t)::text AS definition
FROM (
{summary}
) s CROSS JOIN (
{definition}
) t
