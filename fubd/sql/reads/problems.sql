-- The problems that hold, the longest first.
SELECT p.problem, p.since, p.text FROM fubd.problem p ORDER BY p.since, p.problem
