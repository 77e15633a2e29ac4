-- Let the sequence go on above the highest id.
SELECT setval(s.sequence, :highest_id)
FROM (SELECT :sequence::text::regclass AS sequence) s
WHERE nextval(s.sequence) < :highest_id
