-- Save how the table was before its adoption.
INSERT INTO fubd.adoption (facts) VALUES (:facts::jsonb)
