-- The account whose people this database records.
SELECT a.id, a.name FROM fubd.account a
