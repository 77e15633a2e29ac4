-- The applied migrations.
SELECT m.number, m.sha256 FROM fubd.migration m
