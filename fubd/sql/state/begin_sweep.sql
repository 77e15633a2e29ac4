-- Save how far a sweep has come. The first sweep of all also sets the instant from which we watch.
UPDATE fubd.coverage SET began = coalesce(began, :began), sweep_began = :began, sweep_from_id = :from_id
