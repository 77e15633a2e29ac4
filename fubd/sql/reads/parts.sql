-- The rows of several statements as one JSON object, by the names of the statements.
SELECT json_object_agg(part.name, part.rows) FROM (
{parts}
) part
