-- Lock people who may have reads that say nothing any more (`fubd.core.compaction`), and return for each before which instant what is reported
-- is complete: :settled_days ago, and before what arrived since. Looks at :scan people after :after, in the order of their ids, and returns
-- people with at most :limit claims together; `last_person` is up to where it came, null after the last one. A person who is being recorded has a
-- turn the next time; one with more claims than that has none.
WITH scanned AS MATERIALIZED (
    SELECT p.id FROM fubd.person p WHERE p.id > :after ORDER BY p.id LIMIT :scan
), horizon AS (
    SELECT now() - make_interval(secs => :settled_days::float8 * 86400) AS at
), judged AS (
    SELECT s.id, least(h.at, min(k.at) FILTER (WHERE k.received_at > h.at)) AS before,
        -- The first claim and the last read always stay.
        count(*) FILTER (WHERE k.kind = 'state' AND k.read_at < h.at AND NOT k.ignored) > 2
            AND count(*) <= :limit AS is_candidate,
        count(*) AS claims
    FROM scanned s
    CROSS JOIN horizon h
    JOIN fubd.claim k ON k.person_id = s.id
    GROUP BY s.id, h.at
), counted AS (
    SELECT j.id, j.before, sum(j.claims) OVER (ORDER BY j.id) AS claims FROM judged j WHERE j.is_candidate
), candidates AS MATERIALIZED (
    SELECT c.id, c.before FROM counted c WHERE c.claims <= :limit
), locked AS MATERIALIZED (
    SELECT p.id FROM fubd.person p WHERE p.id IN (SELECT c.id FROM candidates c) ORDER BY p.id FOR NO KEY UPDATE SKIP LOCKED
), reached AS (
    SELECT CASE
        WHEN (SELECT count(*) FROM candidates) < (SELECT count(*) FROM counted) THEN (SELECT max(c.id) FROM candidates c)
        WHEN (SELECT count(*) FROM scanned) = :scan THEN (SELECT max(s.id) FROM scanned s)
    END AS last_person
)
SELECT c.id, c.before, r.last_person
FROM reached r LEFT JOIN (candidates c JOIN locked l USING (id)) ON true
ORDER BY c.id
