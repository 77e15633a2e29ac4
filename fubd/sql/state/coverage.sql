-- The coverage record.
SELECT began, reached, sweep_began, sweep_from_id FROM fubd.coverage
