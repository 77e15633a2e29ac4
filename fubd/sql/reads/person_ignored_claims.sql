-- The claims of a person that make no row, because their stage is one of FUBD_IGNORE_STAGES.
SELECT k.seq, k.kind, k.channel, k.at, k.stage, k.event_id, k.received_at, k.read_at
FROM fubd.claim k
WHERE k.person_id = :person_id AND k.ignored
ORDER BY k.at, k.seq
LIMIT :limit
