-- Rows by id, for readers who page.
SELECT to_jsonb(c) - 'raw_payload' || jsonb_build_object(
    -- An older table's instants have no zone; they are UTC.
    'changed_at', fubd.instant(c.changed_at), 'changed_after', fubd.instant(c.changed_after), 'received_at', fubd.instant(c.received_at),
    'confirmed_at', fubd.instant(c.confirmed_at)
) AS change
FROM public.stage_changes c
WHERE c.id > $1
ORDER BY c.id
LIMIT $2
