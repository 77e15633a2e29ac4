-- Drop the refetch request of a person, unless it was made later.
DELETE FROM fubd.hint WHERE person_id = :person_id AND since <= :at
