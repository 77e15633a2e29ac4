-- What later evidence changed in one person's rows, oldest first.
SELECT x.change_id, x.corrected_at, x.was, x.became FROM fubd.correction x WHERE x.person_id = $1 ORDER BY x.id LIMIT $2
