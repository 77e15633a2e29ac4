-- How many rows other writers have added since fubd's schema was made.
SELECT count(*) AS rows FROM fubd.foreign_row
