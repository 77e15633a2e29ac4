-- The ids of forgotten people, in their order.
SELECT f.person_id FROM fubd.forgotten f ORDER BY f.person_id
