-- Begin a transaction that reads by index alone, as reads/begin_by_index.sql, on a connection that has the limits from its log-in on.
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;
SET LOCAL enable_seqscan = off
