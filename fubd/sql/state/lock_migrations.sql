-- Let no other process migrate before this transaction ends. Held by the transaction, the lock also works through a transaction pooler.
SELECT pg_advisory_xact_lock(:key::bigint)
