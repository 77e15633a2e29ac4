-- Record the rows that another writer added since the last look, each once, and request their people to be refetched. Returns their number.
-- A look reads at most :limit rows above `seen`, and the next goes on from there. A row may become visible after one with a higher id, so the
-- rows up to `settling` are looked at once more, when all transactions that could still have added one have ended: those older than `fence`.
-- `fence` is taken at the look after, because a transaction may draw an id of the table a moment before it gets an id of its own.
WITH mark AS (
    SELECT m.mark, m.seen, m.settling,
        m.settling IS NOT NULL
            AND (m.fence IS NULL OR pg_snapshot_xmin(pg_current_snapshot()) >= m.fence OR m.seen_at < now() - interval '5 minutes') AS is_over
    FROM fubd.foreign_mark m
    FOR UPDATE
), new_rows AS MATERIALIZED (
    SELECT c.id, c.person_id, c.changed_at, c.stage_to
    FROM mark l JOIN public.stage_changes c ON c.id > l.seen
    ORDER BY c.id LIMIT :limit
), settled_rows AS MATERIALIZED (
    SELECT c.id, c.person_id, c.changed_at, c.stage_to
    FROM mark l JOIN public.stage_changes c ON c.id > l.mark AND c.id <= l.settling
    WHERE l.is_over
    ORDER BY c.id LIMIT :limit
), looked_at AS (
    SELECT r.id, CASE WHEN r.person_id ~ '^[0-9]{1,18}$' THEN r.person_id::bigint END AS person_id, r.changed_at, r.stage_to
    FROM (TABLE new_rows UNION ALL TABLE settled_rows) r
), inserted AS (
    INSERT INTO fubd.foreign_row (id, person_id, since, settled)
    SELECT o.id, o.person_id, coalesce(b.since, '1900-01-01'), o.person_id IS NULL
    FROM looked_at o
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
    RETURNING person_id
), requested AS (
    -- Any later read will do, so `since` is the epoch. It shows whether fubd had recorded the same change before.
    INSERT INTO fubd.hint (person_id, since, asked_at)
    SELECT DISTINCT n.person_id, 'epoch'::timestamptz, now() FROM inserted n WHERE n.person_id > 0
    ON CONFLICT (person_id) DO NOTHING
), reached AS (
    -- Up to where everything is settled, and up to where it was seen.
    SELECT l.seen AS seen_before, l.settling, greatest(l.seen, (SELECT max(n.id) FROM new_rows n)) AS seen,
        CASE
            WHEN NOT l.is_over THEN l.mark
            WHEN (SELECT count(*) FROM settled_rows) < :limit THEN l.settling
            ELSE (SELECT max(n.id) FROM settled_rows n)
        END AS mark
    FROM mark l
), moved AS (
    UPDATE fubd.foreign_mark f
    SET mark = r.mark, seen = r.seen,
        settling = CASE WHEN r.mark < r.settling THEN r.settling WHEN r.mark < r.seen_before THEN r.seen_before END,
        fence = CASE WHEN r.mark < r.settling THEN f.fence ELSE pg_snapshot_xmax(pg_current_snapshot()) END,
        seen_at = CASE WHEN r.mark < r.settling THEN f.seen_at ELSE now() END
    FROM reached r
    WHERE f.seen < r.seen OR f.mark < r.mark OR (f.settling IS NULL AND f.mark < f.seen)
)
SELECT count(*) AS rows FROM inserted
