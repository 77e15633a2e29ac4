-- Claims of one person that name a stage of FUBD_IGNORE_STAGES: they are kept and make nothing.
SELECT k.seq, k.kind, k.channel, k.at, k.stage, k.event_id, k.received_at, k.read_at
FROM fubd.claim k
WHERE k.person_id = $1 AND k.ignored
ORDER BY k.at, k.seq
LIMIT $2
