-- Begin a transaction that writes, as state/begin.sql, on a connection that has the limits from its log-in on.
BEGIN ISOLATION LEVEL READ COMMITTED
