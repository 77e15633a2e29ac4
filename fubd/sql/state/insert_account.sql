-- Keep the account of the key; the first one stays.
INSERT INTO fubd.account (id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING
