-- Draw ids for new rows.
SELECT nextval(:sequence::text::regclass) AS id FROM generate_series(1, :count)
