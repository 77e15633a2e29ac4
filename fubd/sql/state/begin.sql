-- Begin a transaction that writes. A role's own default may be another isolation level, at which a transaction that waited for a lock fails.
-- The planner of an empty table chooses to read it whole, and a prepared statement may keep that plan while the table grows.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL timezone = 'UTC';
SET LOCAL statement_timeout = '8s';
SET LOCAL lock_timeout = '5s';
SET LOCAL idle_in_transaction_session_timeout = '10s';
SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL jit = off
