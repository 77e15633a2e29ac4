-- The id that a stage's name had before another stage took the name over: a webhook that comes late is about the stage of its own time.
CREATE TABLE fubd.former_stage (
    name  text        NOT NULL,
    id    bigint      NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (name, id)
);
ALTER TABLE fubd.former_stage ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE fubd.former_stage IS 'Names of stages that another stage has taken over, with the id that each had before.';
COMMENT ON COLUMN fubd.former_stage.name IS 'The name.';
COMMENT ON COLUMN fubd.former_stage.id IS 'Follow Up Boss''s id of the stage that had the name before.';
COMMENT ON COLUMN fubd.former_stage.until IS 'When the name was first seen with another id, by Follow Up Boss''s clock.';
COMMENT ON TABLE fubd.stage IS 'Names that stages have had, to tell a renamed stage from a move: from people as read and from the list of stages.';
COMMENT ON COLUMN fubd.claim.event_id IS
    'Follow Up Boss''s id of the event. Empty for a read; of another stay in a stage that was left without a trace in updated: when it was read.';
