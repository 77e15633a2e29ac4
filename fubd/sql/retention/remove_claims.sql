-- Remove these claims, reads of people that the transaction has locked.
DELETE FROM fubd.claim k
USING unnest(:people::bigint[], :seqs::bigint[]) AS r(person_id, seq)
WHERE k.person_id = r.person_id AND k.seq = r.seq AND k.kind = 'state'
