-- What other writers put into the product table, before it was taken over or since.

-- Whether a row of another writer tells a stage: older scripts wrote these words where they knew none.
CREATE FUNCTION fubd.is_stage(text) RETURNS boolean IMMUTABLE LANGUAGE sql
    AS $$SELECT coalesce(lower(btrim($1)) NOT IN ('', 'unknown', 'previous stage'), false)$$;

-- A value as an older column of another type takes it, or null when it does not.
CREATE FUNCTION fubd.fitted(told text, as_type text) RETURNS text STABLE LANGUAGE plpgsql AS $$
DECLARE
    taken text;
BEGIN
    EXECUTE format('SELECT CAST($1 AS %s)::text', as_type) INTO taken USING told;
    RETURN taken;
EXCEPTION WHEN others THEN
    RETURN NULL;
END
$$;

-- Up to where rows were looked at for others among them. `mark` stays behind `seen` for minutes, because a row may become visible after
-- one with a higher id.
CREATE TABLE fubd.foreign_mark (
    one     boolean     PRIMARY KEY DEFAULT true CHECK (one),
    mark    bigint      NOT NULL,
    seen    bigint      NOT NULL,
    seen_at timestamptz NOT NULL
);
INSERT INTO fubd.foreign_mark (mark, seen, seen_at)
SELECT h.id, h.id, now() FROM (SELECT coalesce(max(c.id), 0) AS id FROM public.stage_changes c) h;

CREATE TABLE fubd.foreign_row (
    id         bigint      PRIMARY KEY,
    noticed_at timestamptz NOT NULL DEFAULT now()
);

-- As before, but a row of another writer that tells no stage does not say where a person stands.
CREATE OR REPLACE VIEW public.current_stages AS
SELECT
    p.id::text AS person_id,
    CASE WHEN p.stage IS NULL OR fubd.instant(c.changed_at) >= p.updated THEN c.stage_to ELSE p.stage END AS stage,
    CASE WHEN p.stage IS NULL OR p.stage = c.stage_to OR fubd.instant(c.changed_at) >= p.updated THEN fubd.instant(c.changed_at) END AS since,
    p.verified_at,
    p.gone_at
FROM fubd.person p
LEFT JOIN LATERAL (
    SELECT s.stage_to, s.changed_at
    FROM public.stage_changes s
    WHERE s.person_id = p.id::text AND s.changed_at > '1900-01-01' AND s.changed_at < '9000-01-01'
        AND (fubd.is_stage(s.stage_to) OR EXISTS (SELECT FROM fubd.claim k WHERE k.person_id = p.id AND coalesce(k.row_id, k.seq) = s.id))
    ORDER BY s.changed_at DESC, s.id DESC
    LIMIT 1
) c ON true
WHERE p.stage IS NOT NULL OR c.stage_to IS NOT NULL;
