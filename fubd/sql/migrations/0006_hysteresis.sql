-- What keeps the mode from flapping, as it was when the mode was last decided, so that a restart goes on as if it had not been.
-- Instants are our clock's. `relapses` is null where the row was written before this was kept.
ALTER TABLE fubd.mode_change
    ADD COLUMN proven_at      timestamptz,
    ADD COLUMN missed         boolean NOT NULL DEFAULT false,
    ADD COLUMN heard_again_at timestamptz,
    ADD COLUMN relapses       integer;
