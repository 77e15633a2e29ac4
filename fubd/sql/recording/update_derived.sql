-- Fill the columns of an older table that the order of a person's rows determines, in our rows of these people ($1). Their values are
-- those of `derived`; what stands in braces is generated (`fubd.store.stage_changes`). A row of another writer counts as the row before if
-- it names a stage and has a usable instant.
WITH history AS (
    SELECT c.id, c.person_id, c.stage_from, c.stage_to, h.at AS previous_stage_entered_at, fubd.instant(c.changed_at) - h.at AS duration
    FROM (SELECT DISTINCT p.id FROM unnest(:people::bigint[]) AS p(id)) p
    JOIN public.stage_changes c ON c.person_id = p.id::text
    LEFT JOIN LATERAL (
        SELECT fubd.instant(b.changed_at) AS at FROM public.stage_changes b
        WHERE b.person_id = c.person_id AND (b.changed_at, b.id) < (c.changed_at, c.id) AND b.changed_at > '1900-01-01'
            AND (fubd.is_stage(b.stage_to) OR EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = p.id AND coalesce(k.row_id, k.seq) = b.id))
        ORDER BY b.changed_at DESC, b.id DESC
        LIMIT 1
    ) h ON true
    WHERE EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = p.id AND coalesce(k.row_id, k.seq) = c.id)
), derived AS (
    SELECT h.id, h.previous_stage_entered_at,
        extract(epoch FROM h.duration) / 86400 AS time_in_previous_stage_days,
        extract(epoch FROM h.duration) / 3600 AS time_in_previous_stage_hours,
        extract(epoch FROM h.duration) / 60 AS time_in_previous_stage_minutes,
        f.place AS stage_priority_from, t.place AS stage_priority_to, t.place > f.place AS is_forward_progression
    FROM history h
    LEFT JOIN fubd.stage_place f ON f.name = h.stage_from
    LEFT JOIN fubd.stage_place t ON t.name = h.stage_to
), fitted AS (
    SELECT d.id, {values} FROM derived d
)
UPDATE public.stage_changes c SET {assignments} FROM fitted n WHERE c.id = n.id AND ({differences})
