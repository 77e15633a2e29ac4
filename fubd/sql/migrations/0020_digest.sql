-- Many people who enter watched stages in one transaction are one message.
ALTER TABLE fubd.alert ADD COLUMN digest bigint;
CREATE INDEX alert_digest ON fubd.alert (digest, id) WHERE digest IS NOT NULL;
COMMENT ON COLUMN fubd.alert.digest IS 'Events with the same value are sent as one message: the lowest id of their changes. Null: a message of its own.';
