-- When a state was first read. The same state read again moves read_at; a change that did not move `updated` is dated by its first read.
ALTER TABLE fubd.claim ADD COLUMN first_read_at timestamptz;
COMMENT ON COLUMN fubd.claim.first_read_at IS 'When this state was first read, by FUB''s clock. Null before the column was added.';
-- The id of a stage belongs to the claim, as the name was used when it was made: a name may be used again for another stage later.
UPDATE fubd.claim k SET stage_id = g.id FROM fubd.stage g WHERE k.stage_id IS NULL AND g.name = k.stage;
