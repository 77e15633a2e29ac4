-- The hosts at which FUB reached the daemons of this database.
SELECT w.host FROM fubd.webhook_host w
