-- How Follow Up Boss's attempts at our webhooks went, by instance and hour (our clock): it disables a webhook of which more than half fail
-- over 48 hours, and a restart must not make us forget. `kept_at`: until when that instance has counted.
CREATE TABLE fubd.door_hour (
    hour     timestamptz NOT NULL,
    instance text        NOT NULL,
    failed   bigint      NOT NULL,
    taken    bigint      NOT NULL,
    kept_at  timestamptz NOT NULL,
    PRIMARY KEY (hour, instance)
);

-- As before, but a row of another writer without a usable instant is not the latest change, as it is not for `/health`.
CREATE OR REPLACE VIEW public.source_health AS
WITH heard AS (
    SELECT
        'webhook' AS source,
        (SELECT d.received_at FROM fubd.delivery d ORDER BY d.id DESC LIMIT 1) AS last_heard,
        (SELECT s.value FROM fubd.setting s WHERE s.name = 'webhook_stale_after_seconds') AS stale_after,
        'STALE - Check webhook server' AS stale
    UNION ALL
    SELECT
        'polling',
        (SELECT r.finished_at FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub' ORDER BY r.finished_at DESC LIMIT 1),
        (SELECT s.value FROM fubd.setting s WHERE s.name = 'poll_stale_after_seconds'),
        'STALE - Check polling'
), told AS (
    SELECT
        fubd.source_of(c.source) AS source,
        count(*) FILTER (WHERE fubd.instant(c.received_at) >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') AS records_today,
        max(fubd.instant(c.changed_at)) FILTER (WHERE c.changed_at < '9000-01-01') AS latest_change
    FROM public.stage_changes c
    GROUP BY 1
)
SELECT
    heard.source,
    coalesce(told.records_today, 0) AS records_today,
    told.latest_change,
    CASE WHEN heard.last_heard >= now() - make_interval(secs => heard.stale_after) THEN 'HEALTHY' ELSE heard.stale END AS status,
    heard.last_heard
FROM heard LEFT JOIN told USING (source);
