-- The problems that fubd reports of itself, as the daemon last wrote them: they outlive the process, and `status` shows them without it.
-- A row leaves the table when its problem ends.
CREATE TABLE fubd.problem (
    problem     text        PRIMARY KEY,
    instance    text        NOT NULL,
    since       timestamptz NOT NULL,
    text        text        NOT NULL,
    announced   boolean     NOT NULL,
    reported_at timestamptz NOT NULL
);
COMMENT ON TABLE fubd.problem IS 'The problems that hold, as a daemon last reported them';
COMMENT ON COLUMN fubd.problem.problem IS 'Its name, as in /health and fubd_problem';
COMMENT ON COLUMN fubd.problem.instance IS 'The process that reported it';
COMMENT ON COLUMN fubd.problem.since IS 'When it began, by that process''s clock';
COMMENT ON COLUMN fubd.problem.text IS 'What happened, to which thing, and what to do';
COMMENT ON COLUMN fubd.problem.announced IS 'Whether an alert said that it began';
COMMENT ON COLUMN fubd.problem.reported_at IS 'When it was last reported to hold, by the database''s clock';
