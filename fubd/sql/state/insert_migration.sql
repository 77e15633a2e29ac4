-- Record a migration as applied.
INSERT INTO fubd.migration (number, name, sha256) VALUES (:number, :name, :sha256)
