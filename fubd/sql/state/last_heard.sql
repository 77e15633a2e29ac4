-- When each source was last heard: any delivery, a stage event, a complete poll.
SELECT
    (SELECT d.received_at FROM fubd.delivery d ORDER BY d.id DESC LIMIT 1) AS webhook,
    (SELECT d.received_at FROM fubd.delivery d WHERE d.event = 'peopleStageUpdated' ORDER BY d.id DESC LIMIT 1) AS stage_webhook,
    (SELECT max(r.finished_at) FROM fubd.poll_run r WHERE r.outcome = 'ok' AND r.kind <> 'scrub') AS polling
