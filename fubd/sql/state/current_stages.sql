-- The stage of each of these people by the rows, or by their first read where they have none; since when; whether they are marked as gone; and
-- whether they were last read in an ignored stage. The id of a stage is the one that it had when it was entered: its name may be another's now.
SELECT n.id, s.stage, coalesce(c.stage_id, k.stage_id, g.id) AS stage_id, coalesce(c.changed_at::timestamptz, k.at, p.updated) AS since,
    p.gone_at IS NOT NULL AS gone,
    EXISTS (
        SELECT FROM fubd.claim i WHERE i.person_id = n.id AND i.at = p.updated AND i.kind = 'state' AND i.stage = p.stage AND i.ignored
    ) AS ignored
FROM unnest(:person_ids::bigint[]) AS n(id)
LEFT JOIN fubd.person p ON p.id = n.id
LEFT JOIN LATERAL (
    SELECT c.stage_to, c.changed_at, (
        SELECT k.stage_id FROM fubd.claim k
        WHERE k.person_id = n.id AND k.at >= c.changed_at::timestamptz - interval '6 seconds' AND k.stage_id IS NOT NULL
            AND (k.stage = c.stage_to OR (length(c.stage_to) >= 100 AND starts_with(k.stage, c.stage_to)))
        ORDER BY k.kind = 'entry' OR k.at > c.changed_at::timestamptz + interval '5 seconds', k.at
        LIMIT 1
    ) AS stage_id
    FROM public.stage_changes c
    WHERE c.person_id = n.id::text AND c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01'
        AND (fubd.is_stage(c.stage_to) OR EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = n.id AND coalesce(k.row_id, k.seq) = c.id))
    ORDER BY c.changed_at DESC, c.id DESC
    LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT k.stage, k.stage_id, k.at FROM fubd.claim k
    WHERE c.stage_to IS NULL AND k.person_id = n.id AND NOT k.ignored
    ORDER BY k.at, k.seq
    LIMIT 1
) k ON true
CROSS JOIN LATERAL (SELECT coalesce(c.stage_to, k.stage, p.stage) AS stage) s
LEFT JOIN fubd.stage g ON g.name = s.stage
WHERE s.stage IS NOT NULL
