-- One row when the server process that answers is the one of this number. Only then the settings are made, for as long as the session lasts.
SELECT (SELECT count(set_config(s.key, s.value, false)) FROM jsonb_each_text({settings}) s) WHERE pg_backend_pid() = {pid}
