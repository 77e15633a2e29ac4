-- The problems that other processes reported last.
SELECT p.problem, p.since, p.text, p.announced FROM fubd.problem p WHERE p.instance <> :instance ORDER BY p.since, p.problem
