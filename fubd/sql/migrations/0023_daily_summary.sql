-- The days whose summary was put into fubd.alert (subject -1), so that each has one.
CREATE TABLE fubd.daily_summary (
    day     date        PRIMARY KEY,
    made_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE fubd.daily_summary IS 'The days whose summary was made, of the last month: each day has one';
COMMENT ON COLUMN fubd.daily_summary.day IS 'The day on which the summary fell due, in FUBD_TIMEZONE';
COMMENT ON COLUMN fubd.daily_summary.made_at IS 'When it was made, the database''s clock';
