-- The hosts at which FUB reached the daemons of this database: webhooks that still point there are ours to correct.
CREATE TABLE fubd.webhook_host (
    host     text        PRIMARY KEY,
    first_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE fubd.webhook_host IS 'Hosts of PUBLIC_URL that daemons of this database had.';
COMMENT ON COLUMN fubd.webhook_host.host IS 'The host name.';
COMMENT ON COLUMN fubd.webhook_host.first_at IS 'When a daemon had it first, by the database''s clock.';
