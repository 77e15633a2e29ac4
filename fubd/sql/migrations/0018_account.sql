-- The Follow Up Boss account whose people this database records. Ids of people collide between accounts.
CREATE TABLE fubd.account (
    id         bigint      PRIMARY KEY,
    name       text,
    first_seen timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX account_is_one ON fubd.account ((true));
COMMENT ON TABLE fubd.account IS 'The Follow Up Boss account whose people are recorded here; one row. Nothing of another account is recorded.';
COMMENT ON COLUMN fubd.account.id IS 'The account''s id in Follow Up Boss.';
COMMENT ON COLUMN fubd.account.name IS 'The account''s name or subdomain, if Follow Up Boss showed one.';
COMMENT ON COLUMN fubd.account.first_seen IS 'When it was first seen, by the database''s clock.';
