-- Rows as several years of scripts left them: placeholders, nulls, test people, unusable ids, infinite instants, two rows in one second, the
-- same stage twice. $1: their number.
SELECT
    CASE n % 40
        WHEN 0 THEN NULL WHEN 1 THEN 'test-' || n WHEN 2 THEN '00' || n WHEN 3 THEN ' ' || n || ' ' WHEN 4 THEN '99999999999999999' || n WHEN 5 THEN ''
        ELSE (1000 + n % ($1 / 3 + 1))::text
    END AS person_id,
    CASE n % 7 WHEN 0 THEN 'Unknown' ELSE 'Ada' END AS first_name,
    'Example' AS last_name,
    CASE n % 6
        WHEN 0 THEN NULL WHEN 1 THEN 'Contact Upload' WHEN 2 THEN 'Unknown' WHEN 3 THEN 'Previous Stage' ELSE 'ACQ - Qualified'
    END AS stage_from,
    CASE n % 9
        WHEN 0 THEN NULL WHEN 1 THEN 'Unknown' WHEN 2 THEN 'ACQ - Dead / DNC' WHEN 3 THEN 'ACQ - Under Contract' ELSE 'ACQ - Offers Made'
    END AS stage_to,
    CASE n % 50
        WHEN 0 THEN NULL WHEN 1 THEN 'infinity' WHEN 2 THEN '-infinity' WHEN 3 THEN '9999-12-31 23:59:59' WHEN 4 THEN '0044-03-15 BC'
        ELSE date_trunc('day', now() AT TIME ZONE 'UTC') - interval '50 days' + (n / 2 * 2)::float8 / $1 * interval '40 days'
    END AS changed_at,
    CASE n % 11
        WHEN 0 THEN NULL WHEN 1 THEN CASE n % 3 WHEN 0 THEN 'infinity' WHEN 1 THEN '-infinity' ELSE '0044-03-15 BC' END::timestamp
        ELSE date_trunc('day', now() AT TIME ZONE 'UTC') - interval '50 days' + n::float8 / $1 * interval '40 days'
    END AS received_at,
    CASE n % 4
        WHEN 0 THEN NULL ELSE jsonb_build_object('id', n, 'assignedTo', 'Grace Example', 'note', repeat('x', n % 300))
    END AS raw_payload,
    'C' || n % 5 AS campaign_id,
    CASE n % 3 WHEN 0 THEN 'ReadyMode' WHEN 1 THEN 'Roor' END AS lead_source_tag,
    (ARRAY[NULL, 'polling', 'wh_peopleStageUpdate', 'wh_peopleUpdated', 'manual_fix', 'test'])[n % 6 + 1] AS source,
    CASE n % 5 WHEN 0 THEN 'event-' || n END AS event_id,
    CASE n % 8 WHEN 0 THEN NULL ELSE 'Grace Example' END AS assigned_user_name
FROM generate_series(1, $1) n
