-- Create fubd's schema and the table of applied migrations.
CREATE SCHEMA IF NOT EXISTS fubd;
CREATE TABLE IF NOT EXISTS fubd.migration (
    number     integer     PRIMARY KEY,
    name       text        NOT NULL,
    sha256     text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
