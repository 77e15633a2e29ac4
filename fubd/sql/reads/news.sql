-- What an open page's stream looks for every few seconds, in one statement that stays prepared: the safe id, and corrections as two arrays.
SELECT s.safe_id, k.ids, k.change_ids
FROM (
{safe_id}
) s CROSS JOIN (
    SELECT coalesce(array_agg(c.id ORDER BY c.id), '{}') AS ids, coalesce(array_agg(c.change_id ORDER BY c.id), '{}') AS change_ids
    FROM (
{corrections}
    ) c
) k
