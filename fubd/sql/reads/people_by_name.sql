-- People whose name contains a text, in any case, the last changed first.
SELECT p.id, p.first_name, p.last_name, p.stage, p.created, p.updated, p.verified_at, p.gone_at,
    EXISTS (SELECT FROM fubd.hint h WHERE h.person_id = p.id) AS asked_for
FROM fubd.person p
WHERE strpos(lower(concat_ws(' ', p.first_name, p.last_name)), lower(:text)) > 0
ORDER BY p.updated DESC NULLS LAST, p.id DESC
LIMIT :limit
