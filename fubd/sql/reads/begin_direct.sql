-- Begin a transaction that only reads, as reads/begin.sql, on a connection that has the limits of transactions that write from its log-in on.
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
SET LOCAL enable_seqscan = on;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_mergejoin = on
