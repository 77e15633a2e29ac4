-- The highest id of the table, and the last value of the sequence from which ids are drawn; null where either is unknown.
SELECT (SELECT max(c.id) FROM public.stage_changes c) AS highest_id,
    pg_sequence_last_value(pg_get_serial_sequence('public.stage_changes', 'id')::regclass) AS last_drawn
