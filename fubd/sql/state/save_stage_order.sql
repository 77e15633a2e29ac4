-- Save the stages in Follow Up Boss's own order.
WITH removed AS (
    DELETE FROM fubd.stage_place s WHERE s.name <> ALL(:names::text[])
)
INSERT INTO fubd.stage_place AS s (name, place)
SELECT g.name, g.place FROM unnest(:names::text[]) WITH ORDINALITY AS g(name, place)
ON CONFLICT (name) DO UPDATE SET place = excluded.place WHERE s.place <> excluded.place
