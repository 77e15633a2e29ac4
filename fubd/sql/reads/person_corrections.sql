-- What later evidence changed in a person's rows, oldest first.
SELECT k.change_id, k.corrected_at, k.was, k.became FROM fubd.correction k WHERE k.person_id = :person_id ORDER BY k.id LIMIT :limit
