-- Fail unless each of these rows stands in the table as it was written. A trigger of the table's owner may alter or remove it, during the
-- statement that writes it or after it; where there is no trigger, nothing is read. A value in braces is as its column takes it
-- (`fubd.store.stage_changes`).
WITH given AS MATERIALIZED (
    SELECT n.* FROM jsonb_to_recordset({document}) AS n(
        id bigint, person_id bigint, stage_from text, stage_to text, changed_at timestamptz, source text
    )
    WHERE EXISTS (
        SELECT FROM pg_trigger t WHERE t.tgrelid = 'public.stage_changes'::regclass AND NOT t.tgisinternal AND t.tgenabled <> 'D'
    )
)
SELECT fubd.require_all_written(ARRAY[count(*)], ARRAY[count(*) FILTER (WHERE EXISTS (
    SELECT FROM public.stage_changes c
    WHERE c.id = n.id AND c.person_id = n.person_id::text AND c.stage_from IS NOT DISTINCT FROM {stage_from: n.stage_from}
        AND c.stage_to IS NOT DISTINCT FROM {stage_to: n.stage_to} AND c.changed_at = {changed_at: n.changed_at}
        AND fubd.source_of(c.source) = n.source
))])
FROM given n
