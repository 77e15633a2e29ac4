-- Begin a transaction that writes, as state/begin.sql, on a connection that has the limits from its log-in on.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off
