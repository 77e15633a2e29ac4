-- Save the account's stages as its list shows them at :at (FUB's clock): the id of each name, and their order. Names that no stage has any more
-- keep their ids, but have no place in the order.
WITH listed AS (
    SELECT g.name, g.id, g.place FROM unnest(:names::text[], :ids::bigint[]) WITH ORDINALITY AS g(name, id, place)
), former AS (
    INSERT INTO fubd.former_stage AS f (name, id, until)
    SELECT g.name, g.id, :at::timestamptz FROM listed l JOIN fubd.stage g ON g.name = l.name WHERE g.id <> l.id
    ON CONFLICT (name, id) DO UPDATE SET until = excluded.until
), named AS (
    INSERT INTO fubd.stage AS g (name, id)
    SELECT l.name, l.id FROM listed l ORDER BY l.name
    ON CONFLICT (name) DO UPDATE SET id = excluded.id WHERE g.id <> excluded.id
), removed AS (
    DELETE FROM fubd.stage_place s WHERE s.name <> ALL(:names::text[])
)
INSERT INTO fubd.stage_place AS s (name, place)
SELECT l.name, l.place FROM listed l
ON CONFLICT (name) DO UPDATE SET place = excluded.place WHERE s.place <> excluded.place
