-- Which of these people are forgotten.
SELECT f.person_id FROM fubd.forgotten f WHERE f.person_id = ANY(:people::bigint[])
