-- For the transaction that adopts or undoes. Our own limits instead of the server's, which may be too short for a large table; and one way to
-- write values, for the proof that no row has changed.
SET LOCAL lock_timeout = '15s';
SET LOCAL statement_timeout = '3600s';
SET LOCAL idle_in_transaction_session_timeout = '60s';
SET LOCAL client_min_messages = warning;
SET LOCAL timezone = 'UTC';
SET LOCAL enable_seqscan = on;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_mergejoin = on;
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL intervalstyle = 'postgres';
SET LOCAL extra_float_digits = 1;
SET LOCAL bytea_output = 'hex';
-- If we are killed, the server ends a long statement and releases the table. Some systems do not support this.
DO $$BEGIN SET LOCAL client_connection_check_interval = '1s'; EXCEPTION WHEN others THEN NULL; END$$
