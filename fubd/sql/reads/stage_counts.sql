-- How many rows entered each stage since :today, in the day before it, and since :week (FUB's time). The most of today and of the week first.
SELECT c.stage_to AS stage,
    count(*) FILTER (WHERE c.changed_at::timestamptz >= :today::timestamptz) AS today,
    count(*) FILTER (WHERE c.changed_at::timestamptz >= :yesterday::timestamptz AND c.changed_at::timestamptz < :today) AS yesterday,
    count(*) FILTER (WHERE c.changed_at::timestamptz >= :week::timestamptz) AS week,
    count(*) FILTER (
        WHERE c.changed_at::timestamptz >= :today AND fubd.source_of(c.source) = 'polling' AND c.confirmed_by IS NULL
    ) AS polling_only
FROM public.stage_changes c
WHERE c.changed_at >= :week AND c.changed_at < '9000-01-01' AND c.stage_to IS NOT NULL
GROUP BY 1
ORDER BY 2 DESC, 4 DESC, 1
LIMIT 200
