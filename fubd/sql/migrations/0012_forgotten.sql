-- People whose names and payloads were removed (`fubd forget`), and are kept out when they are reported again.
CREATE TABLE fubd.forgotten (
    person_id    bigint      PRIMARY KEY,
    forgotten_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE fubd.forgotten IS
    'People whose names, payloads and custom fields are never stored again. Deleting a row lets the next read fill them.';
COMMENT ON COLUMN fubd.forgotten.person_id IS 'Follow Up Boss''s id of the person.';
COMMENT ON COLUMN fubd.forgotten.forgotten_at IS 'When they were removed, by the database''s clock.';
