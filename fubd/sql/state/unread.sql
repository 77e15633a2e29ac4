-- The people who could not be read, those due longest first.
SELECT person_id, since, not_before FROM fubd.unread_person ORDER BY not_before, person_id
