-- Remember a host at which FUB reaches a daemon of this database.
INSERT INTO fubd.webhook_host (host) VALUES (:host) ON CONFLICT (host) DO NOTHING
