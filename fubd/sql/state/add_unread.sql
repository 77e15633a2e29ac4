-- Note people who were shown and could not be read. Seen again, each waits twice as long, from a minute up to six hours.
INSERT INTO fubd.unread_person AS u (person_id, since, not_before)
SELECT p.id, :now, :now::timestamptz + interval '1 minute' FROM unnest(:person_ids::bigint[]) AS p(id) ORDER BY p.id
ON CONFLICT (person_id) DO UPDATE
SET attempts = u.attempts + 1,
    not_before = :now::timestamptz + least(interval '6 hours', interval '1 minute' * 2 ^ least(u.attempts, 10))
