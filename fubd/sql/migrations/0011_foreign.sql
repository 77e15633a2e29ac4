-- A row that another writer added may tell a change that stands there, or belong between rows that were settled before it came. Until the
-- person's next claim it is not `settled`; what that claim is compared with then begins at `since`, the row before of another stage.
ALTER TABLE fubd.foreign_row
    ADD COLUMN person_id bigint,
    ADD COLUMN since     timestamptz,
    ADD COLUMN settled   boolean NOT NULL DEFAULT true;
CREATE INDEX foreign_row_unsettled ON fubd.foreign_row (person_id) WHERE NOT settled;
