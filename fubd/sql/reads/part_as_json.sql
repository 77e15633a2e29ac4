-- The rows of one statement as a JSON array: several such parts make one statement (reads/parts.sql), for one round trip to a database far away.
SELECT '{name}' AS name, (SELECT coalesce(json_agg(part), '[]') FROM (
{query}
) part) AS rows
