-- How many rows each source saw first, by buckets of :bucket_seconds since :since.
SELECT fubd.source_of(c.source) AS source,
    floor(extract(epoch FROM c.received_at::timestamptz - :since::timestamptz) / :bucket_seconds::float8)::int AS bucket,
    count(*) AS changes
FROM public.stage_changes c
WHERE c.received_at >= :since::timestamptz
GROUP BY 1, 2
