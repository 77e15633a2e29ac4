-- The look for rows of other writers goes on from where it was: up to `mark` all is settled, up to `seen` it was looked at, and the rows up
-- to `settling` are looked at once more when no transaction older than `fence` runs any more.
ALTER TABLE fubd.foreign_mark ADD COLUMN settling bigint, ADD COLUMN fence xid8;
COMMENT ON TABLE fubd.foreign_mark IS 'Up to where the rows of stage_changes were looked at for those of other writers. One row.';
COMMENT ON COLUMN fubd.foreign_mark.mark IS 'Up to this id no row can appear any more.';
COMMENT ON COLUMN fubd.foreign_mark.seen IS 'Up to this id rows were looked at.';
COMMENT ON COLUMN fubd.foreign_mark.settling IS 'Up to this id they are looked at once more, because a row may appear after one with a higher id.';
COMMENT ON COLUMN fubd.foreign_mark.fence IS 'That is when all transactions older than this one have ended.';
COMMENT ON COLUMN fubd.foreign_mark.seen_at IS 'When fence was set, by the database''s clock: after five minutes it is not waited for.';
