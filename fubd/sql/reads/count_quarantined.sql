-- How many deliveries are in quarantine.
SELECT count(*) AS deliveries FROM fubd.delivery d WHERE d.quarantine IS NOT NULL
