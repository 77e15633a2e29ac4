-- Limits of the transaction that migrates.
SET LOCAL timezone = 'UTC';
SET LOCAL lock_timeout = '60s';
SET LOCAL client_min_messages = warning
