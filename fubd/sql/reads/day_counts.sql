-- What changed between :since and :until (FUB's time): all, those that polling found by :missed_until and no webhook has reported, and the
-- entries into each of :stages. Webhooks did not miss what happened before recording began, a merge, or a row of another writer.
WITH changes AS MATERIALIZED (
    SELECT
        c.stage_to,
        fubd.source_of(c.source) = 'polling' AND c.confirmed_by IS NULL AND c.stage_to <> 'Trash'
            AND c.changed_at::timestamptz >= v.began AND c.changed_at::timestamptz <= :missed_until::timestamptz
            AND EXISTS (
                SELECT FROM fubd.claim k
                WHERE k.person_id = CASE WHEN c.person_id ~ '^[0-9]{1,18}$' THEN c.person_id::bigint END AND coalesce(k.row_id, k.seq) = c.id
            ) AS is_missed
    FROM public.stage_changes c CROSS JOIN fubd.coverage v
    WHERE c.changed_at >= :since::timestamptz AND c.changed_at < :until::timestamptz
)
SELECT
    (SELECT v.began FROM fubd.coverage v) AS began,
    (SELECT count(*) FROM changes) AS changes,
    (SELECT count(*) FROM changes WHERE is_missed) AS missed,
    ARRAY(
        SELECT (SELECT count(*) FROM changes x WHERE lower(x.stage_to) = lower(w.stage))
        FROM unnest(:stages::text[]) WITH ORDINALITY AS w(stage, place) ORDER BY w.place
    ) AS entries
