-- Begin a transaction that reads by index alone, however large a table has become since the planner last looked at it.
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
SET LOCAL timezone = 'UTC';
SET LOCAL statement_timeout = '8s';
SET LOCAL enable_seqscan = off;
SET LOCAL jit = off
