-- Save the settings that the views use. A time zone that the server does not know would make the views fail.
WITH time_zone AS (
    UPDATE fubd.time_zone z SET name = n.name
    FROM (SELECT coalesce((SELECT k.name FROM pg_timezone_names k WHERE k.name = :time_zone), 'UTC') AS name) n
    WHERE z.name <> n.name
)
INSERT INTO fubd.setting AS s (name, value)
SELECT * FROM unnest(:names::text[], :values::float8[])
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value
