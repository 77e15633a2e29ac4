-- Limits of the transaction that migrates: a statement may take long on a large table, and read all of it.
SET LOCAL timezone = 'UTC';
SET LOCAL enable_seqscan = on;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_mergejoin = on;
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SET LOCAL lock_timeout = '60s';
SET LOCAL client_min_messages = warning
