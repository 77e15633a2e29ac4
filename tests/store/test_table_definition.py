"""The daemon's regular look at the definition of its table finds what would refuse every row, before any row is written."""

from __future__ import annotations

import asyncpg
import pytest

from fubd.store.dsn import parse
from fubd.store.table_definition import find_refusal, read_definition

_NO_VIEWS = "DROP VIEW current_stages, rapid_transitions, stage_durations, stage_changes_daily, source_health;"
_ALTER = "ALTER TABLE stage_changes "


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("CREATE RULE r AS ON INSERT TO stage_changes DO INSTEAD NOTHING", "a rule replaces what fubd writes (r)"),
        (f"{_ALTER} ADD office text NOT NULL DEFAULT ''; {_ALTER} ALTER office DROP DEFAULT", "its column office must not be null"),
        (f"{_ALTER} DROP event_id; {_ALTER} ADD event_id text GENERATED ALWAYS AS ('x') STORED", "its column event_id is generated"),
        (f"{_NO_VIEWS} {_ALTER} ALTER stage_to TYPE numeric USING 1", "its column stage_to is numeric"),
        (f"{_NO_VIEWS} {_ALTER} ALTER stage_to TYPE varchar(5)", "its column stage_to is character varying(5)"),
        (f"{_NO_VIEWS} {_ALTER} ALTER person_id TYPE bigint USING 1", "its column person_id is bigint"),
        (f"{_NO_VIEWS} {_ALTER} ALTER changed_at TYPE date", "its column changed_at is date"),
        (f"{_NO_VIEWS} {_ALTER} ALTER changed_at TYPE timestamptz(0)", "its column changed_at is timestamp(0) with time zone"),
        ("SELECT setval(pg_get_serial_sequence('stage_changes', 'id'), 6)", "the sequence of its ids is at 6"),
        ("SET LOCAL ROLE test_other", "lacks the privilege INSERT, UPDATE, DELETE on it"),
        ("GRANT ALL ON stage_changes TO test_other; SET LOCAL ROLE test_other", "row level security applies"),
    ],
)
async def test_what_would_refuse_every_row_is_found_by_looking(database: str, change: str, words: str) -> None:
    """Each with its words; what the owner may well do to a table of theirs is none of it."""
    connection = await asyncpg.connect(**parse(database).connect_arguments())
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "CREATE ROLE test_other; GRANT USAGE ON SCHEMA fubd TO test_other; GRANT SELECT ON stage_changes TO test_other;"
        f" {_ALTER} ADD note text DEFAULT 'x', ADD CONSTRAINT known CHECK (source <> 'B'); CREATE INDEX ON stage_changes (note)"
    )
    await connection.execute(
        "INSERT INTO stage_changes (id, person_id, stage_to, changed_at, received_at, source, raw_payload)"
        " VALUES (7, '1', 'A', now(), now(), 'webhook', '{}'); SELECT setval(pg_get_serial_sequence('stage_changes', 'id'), 7)"
    )
    assert find_refusal(await read_definition(connection), {}) is None
    await connection.execute(change)
    assert words in str(find_refusal(await read_definition(connection), {}))
    await transaction.rollback()
    await connection.close()
