-- Count the rows of {relation}, and sum the two halves of each row's SHA-256 over {columns}. A sum does not depend on the order of rows; unlike
-- XOR, it also distinguishes a row that is there twice from one that is not there.
SELECT
    count(*) AS rows,
    coalesce(sum(('x' || left(r.hash, 16))::bit(64)::bigint::numeric), 0)::text AS first,
    coalesce(sum(('x' || substr(r.hash, 17, 16))::bit(64)::bigint::numeric), 0)::text AS second
FROM (
    SELECT encode(sha256(convert_to(ROW({columns})::text, 'UTF8')), 'hex') AS hash
    FROM {relation}
) r
