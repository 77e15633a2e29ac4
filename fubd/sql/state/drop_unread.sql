-- These people were read, or are gone.
DELETE FROM fubd.unread_person WHERE person_id = ANY(:person_ids::bigint[])
