-- One person as last read, and whether a refetch is still requested.
SELECT p.id, p.first_name, p.last_name, p.stage, p.created, p.updated, p.verified_at, p.gone_at,
    EXISTS (SELECT FROM fubd.hint h WHERE h.person_id = p.id) AS asked_for
FROM fubd.person p
WHERE p.id = :person_id
