-- The process that ran last, by its own clock, and whether it stopped in good order.
SELECT p.instance, p.alive_at, p.stopped_at IS NOT NULL AS is_stopped FROM fubd.process_run p ORDER BY p.alive_at DESC LIMIT 1
