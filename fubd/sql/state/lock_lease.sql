-- The token of the lease, which no other instance can take before this transaction ends.
SELECT token FROM fubd.lease WHERE name = :name FOR SHARE
