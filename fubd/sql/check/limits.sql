-- As the daemon's. A role's own limit may be too short; a trigger that takes longer is named, which a statement given up here is not.
SET LOCAL statement_timeout = '8s'
