-- The stage of each of these people by the rows, or by their first read where they have none; and whether they are marked as gone.
SELECT n.id, s.stage, g.id AS stage_id, p.gone_at IS NOT NULL AS gone
FROM unnest(:person_ids::bigint[]) AS n(id)
LEFT JOIN fubd.person p ON p.id = n.id
LEFT JOIN LATERAL (
    SELECT c.stage_to FROM public.stage_changes c
    WHERE c.person_id = n.id::text AND c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01'
        AND (fubd.is_stage(c.stage_to) OR EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = n.id AND coalesce(k.row_id, k.seq) = c.id))
    ORDER BY c.changed_at DESC, c.id DESC
    LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT k.stage FROM fubd.claim k
    WHERE c.stage_to IS NULL AND k.person_id = n.id AND NOT k.ignored
    ORDER BY k.at, k.seq
    LIMIT 1
) k ON true
CROSS JOIN LATERAL (SELECT coalesce(c.stage_to, k.stage, p.stage) AS stage) s
LEFT JOIN fubd.stage g ON g.name = s.stage
WHERE s.stage IS NOT NULL
