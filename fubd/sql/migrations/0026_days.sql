-- stage_changes_daily spent most of its time on being compiled: the planner expected a thousand days of generate_series, and compiles what it
-- expects to cost much (jit_above_cost). Of an array it expects ten.
CREATE OR REPLACE VIEW public.stage_changes_daily AS
SELECT d.midnight::date AS day, n.source, n.stage, n.changes
FROM unnest(ARRAY(
    SELECT generate_series(
        (
            SELECT date_trunc('day', fubd.instant(c.changed_at) AT TIME ZONE (SELECT z.name FROM fubd.time_zone z)) FROM public.stage_changes c
            WHERE c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01' ORDER BY c.changed_at LIMIT 1
        ),
        (
            SELECT fubd.instant(c.changed_at) AT TIME ZONE (SELECT z.name FROM fubd.time_zone z) FROM public.stage_changes c
            WHERE c.changed_at > '1900-01-01' AND c.changed_at < '9000-01-01' ORDER BY c.changed_at DESC LIMIT 1
        ),
        interval '1 day'
    )
)) AS d (midnight)
CROSS JOIN LATERAL (
    SELECT fubd.source_of(c.source) AS source, c.stage_to AS stage, count(*) AS changes
    FROM public.stage_changes c
    WHERE fubd.instant(c.changed_at) >= d.midnight AT TIME ZONE (SELECT z.name FROM fubd.time_zone z)
        AND fubd.instant(c.changed_at) < (d.midnight + interval '1 day') AT TIME ZONE (SELECT z.name FROM fubd.time_zone z)
        -- For the index of an older table, whose instants have no zone.
        AND c.changed_at > d.midnight - interval '2 days' AND c.changed_at < d.midnight + interval '3 days'
    GROUP BY 1, 2
) n;
