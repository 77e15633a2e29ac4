-- One row when the server process that answers is the one of this number.
SELECT WHERE pg_backend_pid() = {pid}
