-- Begin a transaction that only reads. Each statement sees what was committed before it, not only what was before the first.
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
SET LOCAL timezone = 'UTC';
SET LOCAL statement_timeout = '8s';
SET LOCAL jit = off
