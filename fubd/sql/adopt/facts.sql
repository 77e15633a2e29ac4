-- How the table was before its adoption.
SELECT a.facts FROM fubd.adoption a
