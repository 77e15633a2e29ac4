-- Record the rows that another writer added since the last look, each once, and request their people to be refetched. Returns their number.
WITH mark AS (
    SELECT m.mark, m.seen, m.seen_at FROM fubd.foreign_mark m FOR UPDATE
), added AS (
    SELECT c.id, CASE WHEN c.person_id ~ '^[0-9]{1,18}$' THEN c.person_id::bigint END AS person_id, c.changed_at, c.stage_to
    FROM mark l JOIN public.stage_changes c ON c.id > l.mark
), inserted AS (
    INSERT INTO fubd.foreign_row (id, person_id, since, settled)
    SELECT o.id, o.person_id, coalesce(b.since, '1900-01-01'), o.person_id IS NULL
    FROM added o
    LEFT JOIN LATERAL (
        SELECT fubd.instant(c.changed_at) AS since
        FROM public.stage_changes c
        WHERE c.person_id = o.person_id::text AND c.changed_at BETWEEN '1900-01-01' AND '9000-01-01' AND c.changed_at < o.changed_at
            AND c.stage_to IS DISTINCT FROM o.stage_to AND fubd.is_stage(c.stage_to)
        ORDER BY c.changed_at DESC
        LIMIT 1
    ) b ON true
    WHERE NOT EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = o.person_id AND coalesce(k.row_id, k.seq) = o.id)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), requested AS (
    -- Any later read will do, so `since` is the epoch. It shows whether fubd had recorded the same change before.
    INSERT INTO fubd.hint (person_id, since, asked_at)
    SELECT DISTINCT o.person_id, 'epoch'::timestamptz, now() FROM inserted n JOIN added o ON o.id = n.id WHERE o.person_id > 0
    ON CONFLICT (person_id) DO NOTHING
), moved AS (
    UPDATE fubd.foreign_mark f SET mark = l.seen, seen = greatest(l.seen, (SELECT max(o.id) FROM added o)), seen_at = now()
    FROM mark l WHERE l.seen_at < now() - interval '5 minutes'
)
SELECT count(*) AS rows FROM inserted
