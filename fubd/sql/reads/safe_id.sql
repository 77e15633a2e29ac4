-- The id up to which no further row can appear. A writer draws an id from the sequence before it commits the row, so a row may appear
-- below one that is visible already. Each writer therefore announces, by an advisory lock that it holds until its commit
-- (recording/insert_claims.sql), above which id its own will lie; transactions without that lock do not count.
-- The order matters: first what was drawn, then who is at work, and the rows only in a later statement. So each writer of an id up to
-- this one is either seen at work here, or has committed before the rows are read.
-- 1718968937 is 'fubi' in ASCII; the other half of the key holds the low 32 bits of the id.
SELECT least(drawn.id, (
    SELECT min(drawn.id - (drawn.id - w.objid::bigint) % 4294967296) FROM pg_locks w
    WHERE w.locktype = 'advisory' AND w.classid = 1718968937 AND w.objsubid = 2
        AND w.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
)) AS safe_id
FROM (SELECT coalesce(pg_sequence_last_value(:sequence::text::regclass), 0) AS id) drawn
