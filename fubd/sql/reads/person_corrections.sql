-- What later evidence changed in a person's rows, oldest first. A row that names were filled into was not changed by evidence.
SELECT k.change_id, k.corrected_at, k.was, k.became FROM fubd.correction k
WHERE k.person_id = :person_id AND k.was IS DISTINCT FROM k.became
ORDER BY k.id
LIMIT :limit
