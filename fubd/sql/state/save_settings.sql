-- Save the settings that the views use.
INSERT INTO fubd.setting AS s (name, value)
SELECT * FROM unnest(:names::text[], :values::float8[])
ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE s.value <> excluded.value
