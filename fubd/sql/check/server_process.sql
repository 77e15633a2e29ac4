-- The server process that answers: behind a pooler another one than the pooler names.
SELECT pg_backend_pid() AS pid
