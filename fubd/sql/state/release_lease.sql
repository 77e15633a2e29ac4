-- Let the lease end now.
UPDATE fubd.lease SET expires_at = '-infinity' WHERE name = :name AND holder = :holder
