-- What stands near an instant of one person, as the recording transaction loads it (the function is of migration 0033). :stage_length: to how
-- many characters the table cuts the name of a stage. No parameter is an array, for which the driver would first ask the server what it is.
SELECT * FROM fubd.load_history(ARRAY[:person_id::bigint], ARRAY[:since::timestamptz], :stage_length::int)
