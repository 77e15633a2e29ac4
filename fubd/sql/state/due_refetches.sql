-- Refetch requests that are due. First the people never asked for yet, then by the number of attempts; last of all the people that FUB
-- reported as deleted and that were not found.
SELECT h.person_id, h.since, h.attempts, h.deleted
FROM fubd.hint h
WHERE h.not_before <= now()
ORDER BY h.deleted AND h.attempts > 0, h.attempts, h.asked_at, h.person_id
LIMIT :limit
