-- Unconfirmed changes found by polling, by now old enough that a webhook should have reported them.
SELECT u.change_id
FROM fubd.unconfirmed u
WHERE u.changed_at <= :fub_now::timestamptz - make_interval(secs => :missed_after_seconds)
