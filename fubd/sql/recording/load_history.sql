-- Load what stands near an instant, for each person (the function is of migration 0025). :stage_length: to how many characters the table cuts
-- the name of a stage.
SELECT * FROM fubd.load_history(:person_id::bigint[], :since::timestamptz[], :stage_length::int)
