-- Up to which id no row can appear any more. An id ($1: the sequence) is drawn before its row is committed, so a row may appear after one
-- with a higher id. Who draws says first from where on, by an advisory lock until the commit (recording/insert_claims.sql); other transactions do not count.
-- First what was drawn, then who is at work, and the rows only in a statement after this one: so whoever drew an id up to here is either
-- seen at work or seen to have committed.
SELECT least(drawn.id, (
    SELECT min(drawn.id - (drawn.id - w.objid::bigint) % 4294967296) FROM pg_locks w
    WHERE w.locktype = 'advisory' AND w.classid = 1718968937 AND w.objsubid = 2
        AND w.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
))
FROM (SELECT coalesce(pg_sequence_last_value($1::text::regclass), 0) AS id) drawn
