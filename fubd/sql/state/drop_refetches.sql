-- Drop refetch requests.
DELETE FROM fubd.hint WHERE person_id = ANY(:person_ids::bigint[])
