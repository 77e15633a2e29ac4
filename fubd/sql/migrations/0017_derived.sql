-- Columns of an older table that the order of a person's rows determines.

CREATE TABLE fubd.stage_place (
    name  text    PRIMARY KEY,
    place integer NOT NULL
);
COMMENT ON TABLE fubd.stage_place IS 'The stages in Follow Up Boss''s own order.';
COMMENT ON COLUMN fubd.stage_place.name IS 'Name of the stage.';
COMMENT ON COLUMN fubd.stage_place.place IS 'Its place, from 1.';

-- Runs a statement for people, given as $1, after what the calling statement has already written: a part of the calling statement itself
-- would see the rows as they were before it, and a statement of its own would cost a round trip. `written` is for the order of the two.
CREATE FUNCTION fubd.run_after(written bigint, people bigint[], statement text) RETURNS void VOLATILE STRICT LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement USING people;
END
$$;
