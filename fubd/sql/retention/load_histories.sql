-- Everything that stands about these people, from the first claim and row on, as the recording transaction loads it.
SELECT h.*
FROM (SELECT array_agg(p.id) AS people, array_agg('1900-01-01'::timestamptz) AS since FROM unnest(:people::bigint[]) AS p(id)) a
CROSS JOIN LATERAL fubd.load_history(a.people, a.since, :stage_length::int) h
