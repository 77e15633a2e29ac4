-- Whether the table has a column that is derived from the order of the stages.
SELECT EXISTS (
    SELECT FROM pg_attribute a
    WHERE a.attrelid = 'public.stage_changes'::regclass AND NOT a.attisdropped
        AND a.attname IN ('stage_priority_from', 'stage_priority_to', 'is_forward_progression')
) AS is_needed
