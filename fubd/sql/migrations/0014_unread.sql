-- People who could not be read: Follow Up Boss showed them without a usable stage or time of change. Each is asked for again from
-- `not_before` on, at growing intervals, and leaves the table when a reading is recorded. Person 0 stands for elements without a usable id.
CREATE TABLE fubd.unread_person (
    person_id  bigint      PRIMARY KEY,
    since      timestamptz NOT NULL,
    attempts   integer     NOT NULL DEFAULT 1,
    not_before timestamptz NOT NULL
);
COMMENT ON TABLE fubd.unread_person IS 'People shown by Follow Up Boss whose data could not be used, by id; 0: elements without an id';
COMMENT ON COLUMN fubd.unread_person.since IS 'When that was first seen, our clock';
COMMENT ON COLUMN fubd.unread_person.attempts IS 'How often it was seen';
COMMENT ON COLUMN fubd.unread_person.not_before IS 'Not asked for again before this, our clock';
