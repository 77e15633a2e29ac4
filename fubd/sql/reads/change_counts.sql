-- How many changes each source brought first, by quarter hour since $1.
SELECT fubd.source_of(c.source) AS source, floor(extract(epoch FROM c.received_at::timestamptz - $1::timestamptz) / $2::float8)::int AS bucket,
    count(*) AS changes
FROM public.stage_changes c
WHERE c.received_at >= $1::timestamptz
GROUP BY 1, 2
