-- When fubd ran and when it could not record, for the status page: silence in the history has a reason that nothing else here tells.
CREATE TABLE fubd.process_run (
    instance   text        PRIMARY KEY,
    started_at timestamptz NOT NULL,
    alive_at   timestamptz NOT NULL
);
CREATE INDEX process_run_alive ON fubd.process_run (alive_at);
COMMENT ON TABLE fubd.process_run IS 'When each process of the daemon ran, by its own clock.';
COMMENT ON COLUMN fubd.process_run.instance IS 'The unique name of the process.';
COMMENT ON COLUMN fubd.process_run.started_at IS 'When it started.';
COMMENT ON COLUMN fubd.process_run.alive_at IS 'When it last ran, noted every 30 s while the database answers, and at a clean stop.';

CREATE TABLE fubd.recording_gap (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance text        NOT NULL,
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL
);
CREATE INDEX recording_gap_ended ON fubd.recording_gap (ended_at);
COMMENT ON TABLE fubd.recording_gap IS 'Times in which a process ran and could not record, because the database was away or the table refused rows.';
COMMENT ON COLUMN fubd.recording_gap.id IS 'Its number.';
COMMENT ON COLUMN fubd.recording_gap.instance IS 'The unique name of the process.';
COMMENT ON COLUMN fubd.recording_gap.began_at IS 'When the process first noticed it, by its own clock.';
COMMENT ON COLUMN fubd.recording_gap.ended_at IS 'When recording worked again.';
