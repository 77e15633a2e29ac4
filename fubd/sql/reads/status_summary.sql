-- Everything the status page shows at a glance, in one row. :first_delivery: the lowest delivery id that can be this instance's own.
SELECT
    (SELECT d.received_at FROM fubd.delivery d ORDER BY d.id DESC LIMIT 1) AS webhook_heard,
    (SELECT max(r.finished_at) FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub') AS polling_heard,
    counts.webhook_today, counts.polling_today,
    (SELECT c.changed_at::timestamptz FROM public.stage_changes c
        WHERE fubd.source_of(c.source) = 'webhook' AND c.changed_at BETWEEN '1900-01-01' AND '9000-01-01'
        ORDER BY c.changed_at DESC LIMIT 1) AS webhook_change,
    (SELECT c.changed_at::timestamptz FROM public.stage_changes c
        WHERE fubd.source_of(c.source) = 'polling' AND c.changed_at BETWEEN '1900-01-01' AND '9000-01-01'
        ORDER BY c.changed_at DESC LIMIT 1) AS polling_change,
    v.reached AS coverage,
    s.last_ratio AS completeness,
    coalesce(s.last_people, 0) AS people,
    (SELECT p.verified_at FROM fubd.person p WHERE p.gone_at IS NULL AND p.verified_at IS NOT NULL ORDER BY p.scrub_after, p.id LIMIT 1) AS oldest,
    (SELECT count(*) FROM fubd.hint) AS pending_refetches,
    (SELECT count(*) FROM fubd.delivery d WHERE d.quarantine IS NOT NULL) AS quarantined,
    (SELECT count(*) FROM fubd.delivery d WHERE d.id >= :first_delivery AND d.instance = :instance) AS own_deliveries
FROM fubd.coverage v, fubd.scrub s, (
    SELECT
        count(*) FILTER (WHERE fubd.source_of(c.source) = 'webhook') AS webhook_today,
        count(*) FILTER (WHERE fubd.source_of(c.source) = 'polling') AS polling_today
    FROM public.stage_changes c
    WHERE c.received_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AND c.received_at < '9000-01-01'
) counts
