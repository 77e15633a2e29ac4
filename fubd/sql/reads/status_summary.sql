-- Everything the status page shows at a glance, in one row. It is read every few seconds, so each part is a step in an index.
-- :first_delivery: this instance's own deliveries are counted from this id on.
SELECT
    (SELECT d.received_at FROM fubd.delivery d ORDER BY d.id DESC LIMIT 1) AS webhook_heard,
    (SELECT max(r.finished_at) FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub') AS polling_heard,
    h.webhook_today, h.polling_today, h.webhook_change, h.polling_change,
    v.reached AS coverage,
    s.last_ratio AS completeness,
    coalesce(s.last_people, 0) AS people,
    (SELECT p.verified_at FROM fubd.person p WHERE p.gone_at IS NULL AND p.verified_at IS NOT NULL AND p.scrub_after > '-infinity'
        ORDER BY p.scrub_after, p.id LIMIT 1) AS oldest,
    (SELECT count(*) FROM fubd.hint) AS pending_refetches,
    (SELECT count(*) FROM fubd.delivery d WHERE d.quarantine IS NOT NULL) AS quarantined,
    (SELECT count(*) FROM fubd.delivery d WHERE d.id >= :first_delivery AND d.instance = :instance) AS own_deliveries,
    (SELECT coalesce(max(d.id), 0) FROM fubd.delivery d) AS last_delivery,
    (SELECT m.mark < m.seen OR coalesce((SELECT max(c.id) FROM public.stage_changes c) > m.seen, false)
        FROM fubd.foreign_mark m) AS has_unseen_rows,
    -- In failover webhooks are known to fail, however recently one was heard.
    coalesce((SELECT m.mode = 'failover' FROM fubd.mode_change m ORDER BY m.id DESC LIMIT 1), false) AS webhooks_fail,
    -- What a session may do that does not say so itself: a look is read-only in any case.
    pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean AS is_read_only
FROM fubd.coverage v, fubd.scrub s, (
    SELECT
        max(h.records_today) FILTER (WHERE h.source = 'webhook') AS webhook_today,
        max(h.records_today) FILTER (WHERE h.source = 'polling') AS polling_today,
        max(h.latest_change) FILTER (WHERE h.source = 'webhook') AS webhook_change,
        max(h.latest_change) FILTER (WHERE h.source = 'polling') AS polling_change
    FROM public.source_health h
) h
