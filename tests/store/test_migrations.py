"""Migrations that were released stay as they are, and bring a database of the first release to the present schema with its rows."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import asyncpg

from fubd.store import migrate, migrations, statements
from tests.recorder import read, running_recorder, webhook
from tests.store.adopting import connected
from tests.support.documents import table

# The sha256 of each migration, from 1 on. A new migration adds a line.
SHA256 = (
    "3cbd9801d575a252dcc06bc9ff7203fdee8c142e22aa4ac36e63ff503e7afeff",
    "8adfbf02963289fbc511b73eb9e371adb325079dafa8cba8a7dae36aac14e2f7",
    "cf395afa6b0f192e5d606ca2d469925e72b296440f5c122a5fa3118afe6da29a",
    "a64d63e3eb63e6d3209b396d00894dc1e36bfce20ba6113a67315a7ce886eb95",
    "30f692682e70361f2f6ad560e93d553ed99ca31763c7ec6d91ec38f235cc8a03",
    "7fbd7bd5f08a18801813c06437b192de159ed2953879a2b615d138aa8d32a999",
    "f8fdc152a0fbe727d61716d1985566c4e96575dc6ce9a61cd641476eb6530851",
    "5ba7c8f4f043c621bab1daa19309d59f47fd5cd8385863c8d3ea139adefe4800",
    "96062d5fcbd5138fd20351d43ae499e1fe2b26fcbfd2efcec8639197ebf854cc",
    "f55246dd27b3b4c62929b753354c51cf7c24c1b4a2cc5464e9a98a82cec8d86d",
    "7ff181875b481f406c793241aa9a5832a330f5dabfe86254f838b162167bfd54",
    "ecdaadacf3ca8b735ad08c71a8eab4ba341e6cc63719a477bced457b99a25ee5",
    "e26605c046dc245bb44bd689d9b267051523169b99055b5f2d87dc94f9bcb150",
    "e9e3d0e1dc1b90ea6044381c91105539587d6b3a32a5a66eeb5b12b608a7fb9c",
    "a6fae558ce0938e14fc65c382ce4fadd3232c1a48e8b1186f5bc6abbfeb9c8e7",
    "121a36f0abad8d9eb44d318ae2803e09b0372b4ae94fd9fe08c583f02ca78d8d",
    "97ff2cd04360101bc360458f1c6eddee7ef0bc8110307eca9f05c9bbd8cbf1af",
    "9ba93e45c1be07557a79818fb02c1f9c0900ef4fc41f4d5bfcfa7e368be312c7",
    "19e67b6eec1c4868728eaf5566321bf22cf29b5fdab2590a9ab3646b7175f420",
    "2ad85b47f2cb5ec25b2bdf1661afdb608b14b0262859cc7a681ff7c33329262d",
    "b792036fb12a0845bb74e76b6b6d399b444bef36c7f347da5effde50b17d7d1c",
    "d8ef0dea6a8cac8ba14cce0c142e46c4728f03c375da8017c4f8d461caeec58b",
    "a96f8f5488df6be67c85e6521f1ed7ba82dba8fda7fcac4edf8eb53cce4a6b15",
    "5b38632af140b672967a6968e44ea2682d7ec5303dc93b91ab9ca500caecdf37",
    "1c67dd5183433a1508ab0e7c9660af686e1b4db533d7c70aaea414794a7881ec",
    "24eb134c64cf29fbee4d42a1ba58afa3b43ad2c5d1322734844b3a3f22bdfb31",
    "1edebe99cdc78d138fa6d779043d631db0ea52e2dc1f43444f4d8ccaf7f426a5",
    "ad264d32241bda0cd98d320a2d270c67200a358435ff0b333ddb9cbbbb24783f",
    "d8dd527a31a0322960de42a077d0b42563c2f44e36a61043fbfb68d83385c023",
    "b4a62cf06c065fe096b3f0e24c1cedd771b2592cdf72ddc7c29daf5078e848c7",
    "6c1eb40bb0f57ab1ed7dc7c67f2edc912181e2ac5232a948dd03174f56af933a",
    "2f0539d0f6557988fccc30e963a4761e1d4a1cbd53885878bc4c791a900df227",
    "28581c1d30fc640a221e7a7380b6a4af4e8be126051135f909299bae2cbb9ae7",
)
# The newest migration of release 0.1.0.
_FIRST_RELEASE = 11
# The digest of migration 29 before 31 was split from it.
_UNSPLIT = "68dcfa02e2bc8b2f6cb2b1c4fad2c4ca28ff2dbefad51f8bff7068b6c94ef516"
# What release 0.1.0 had after a webhook reported A and then B for person 1, a poll found C for person 2, and person 3 was deleted.
_FIRST_RELEASE_ROWS = """
    INSERT INTO fubd.stage (name, id) VALUES ('A', 11), ('B', 12), ('C', 13);
    INSERT INTO fubd.person (id, stage, stage_id, created, updated, verified_at, gone_at, first_name) VALUES
        (1, 'A', 11, '2026-01-05 08:00Z', '2026-01-05 09:00Z', '2026-01-05 09:10Z', NULL, 'Ada'),
        (2, 'C', 13, '2026-01-05 08:00Z', '2026-01-05 09:00Z', '2026-01-05 09:10Z', NULL, 'Bob'),
        (3, 'C', 13, '2026-01-05 08:00Z', '2026-01-05 09:00Z', '2026-01-05 09:10Z', '2026-01-05 09:20Z', NULL);
    INSERT INTO fubd.claim (person_id, at, kind, channel, event_id, stage, received_at, read_at, covered, seq) VALUES
        (1, '2026-01-05 09:00Z', 'entry', 'webhook', 'e1', 'A', '2026-01-05 09:01Z', NULL, NULL, 1),
        (1, '2026-01-05 09:03Z', 'entry', 'webhook', 'e2', 'B', '2026-01-05 09:04Z', NULL, NULL, 2),
        (2, '2026-01-05 09:00Z', 'state', 'polling', '', 'C', '2026-01-05 09:10Z', '2026-01-05 09:10Z', '2026-01-05 08:30Z', 3);
    INSERT INTO public.stage_changes (id, person_id, first_name, stage_from, stage_to, changed_at, changed_after, received_at, source,
            event_id, raw_payload) VALUES
        (1, '1', 'Ada', NULL, 'A', '2026-01-05 09:00Z', NULL, '2026-01-05 09:01Z', 'webhook', 'e1', '{"eventId": "e1"}'),
        (2, '1', 'Ada', 'A', 'B', '2026-01-05 09:03Z', NULL, '2026-01-05 09:04Z', 'webhook', 'e2', '{"eventId": "e2"}'),
        (3, '2', 'Bob', NULL, 'C', '2026-01-05 09:00Z', '2026-01-05 08:30Z', '2026-01-05 09:10Z', 'polling', NULL, '{"id": 2}');
    SELECT setval('public.stage_changes_id_seq', 3);
    INSERT INTO fubd.delivery (key, event_id, event, received_at, instance, body) VALUES
        ('1', 'e1', 'peopleStageUpdated', '2026-01-05 09:01Z', 'one', '{}'), ('2', 'e2', 'peopleStageUpdated', now(), 'one', '{}');
    INSERT INTO fubd.hint (person_id, since, asked_at) VALUES (1, '2026-01-05 09:03Z', '2026-01-05 09:04Z');
    INSERT INTO fubd.unconfirmed VALUES (3, '2026-01-05 09:00Z');
    INSERT INTO fubd.correction (change_id, person_id, corrected_at, was) VALUES (3, 2, '2026-01-05 09:11Z', '{"stage_to": "C"}');
    INSERT INTO fubd.poll_run (kind, started_at, finished_at, outcome) VALUES
        ('incremental', '2026-01-05 09:10Z', '2026-01-05 09:10Z', 'ok');
    INSERT INTO fubd.mode_change (at, mode, reason, delay_seconds, evidence) VALUES ('2026-01-05 09:10Z', 'normal', 'baseline', 1800, '{}');
    INSERT INTO fubd.alert (subject, told) VALUES (1, '{"text": "x"}');
    INSERT INTO fubd.door_hour VALUES ('2026-01-05 09:00Z', 'one', 1, 2, '2026-01-05 09:30Z');
    UPDATE fubd.coverage SET began = '2026-01-05 08:00Z', reached = '2026-01-05 09:10Z';
    UPDATE fubd.setting SET value = 7200 WHERE name = 'webhook_stale_after_seconds';
"""
# By relation, everything that must be the same; the duration of a stage that a person is still in grows.
_SAME = {
    "public.stage_durations": "id, person_id, stage, entered_at, left_at, next_stage",
    **dict.fromkeys(("public.stage_changes", "public.current_stages", "public.stage_changes_daily", "public.source_health"), "*"),
    "public.rapid_transitions": "*",
}


def test_released_migrations_are_never_edited() -> None:
    """Each has the text that databases have applied."""
    found = [hashlib.sha256(text.encode()).hexdigest() for _, _, text in statements.migrations()]
    assert found[: len(SHA256)] == list(SHA256), (
        "a migration was edited: databases that applied its former text refuse to start with the new one (SchemaRefused), and never get"
        " the change. Restore the text, and put the change into a new migration."
    )
    assert len(found) == len(SHA256), "a migration is new: add its sha256 here, once it is in its final form"


async def test_a_migration_that_was_split_counts_as_applied_with_either_text(database: str) -> None:
    """A database that applied the text from which migration 31 was split gets the rest, and is then current."""
    async with connected(database) as connection:
        await connection.execute("DELETE FROM fubd.migration WHERE number > 30")
        await connection.execute("UPDATE fubd.migration SET sha256 = $1 WHERE number = 29", _UNSPLIT)
        await migrate(connection)
        assert await migrations.is_current(connection)


async def test_the_readme_names_every_table(database: str) -> None:
    """The second table of fubd/sql/README.md has the tables of the schema fubd, and no other."""
    readme = (resources.files("fubd") / "sql" / "README.md").read_text(encoding="utf-8")
    described = [name for names, _ in table(readme, "The schema") for name in re.findall("`([^`]+)`", names)]
    async with connected(database) as connection:
        records = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'fubd'")
    assert sorted(described) == sorted(record["tablename"] for record in records)


async def _contents(connection: asyncpg.Connection, shown: dict[str, str]) -> dict[str, list[str]]:
    """Return the rows of each relation as text, in order."""
    return {
        relation: sorted(str(dict(row)) for row in await connection.fetch(f"SELECT {columns} FROM {relation}"))
        for relation, columns in shown.items()
    }


async def _own_tables(connection: asyncpg.Connection) -> dict[str, str]:
    """Return each table of the schema fubd with its columns, the applied migrations aside."""
    found = await connection.fetch(
        "SELECT attrelid::regclass::text AS name, string_agg(attname, ', ') AS columns"
        " FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE c.relnamespace = 'fubd'::regnamespace AND c.relkind = 'r'"
        " AND attnum > 0 AND NOT attisdropped GROUP BY 1"
    )
    return {row["name"]: row["columns"] for row in found if row["name"] != "fubd.migration"}


async def test_a_database_of_the_first_release_is_brought_up_to_date(empty_database: str) -> None:
    """Its rows and the answers of its views are as before, and recording continues where it was."""
    async with connected(empty_database) as connection:
        for number, name, text in statements.migrations()[:_FIRST_RELEASE]:
            await migrations.apply(connection, number, name, text)
        await connection.execute(_FIRST_RELEASE_ROWS)
        tables = await _own_tables(connection)
        before = await _contents(connection, _SAME | tables)
        await connection.execute("UPDATE fubd.claim k SET stage_id = g.id FROM fubd.stage g WHERE g.name = k.stage")
        with_stage_ids = await _contents(connection, {"fubd.claim": tables["fubd.claim"]})
        await connection.execute("UPDATE fubd.claim SET stage_id = NULL")
        await migrate(connection)
        # The ids of stages are the only thing that a migration fills in.
        assert await _contents(connection, _SAME | tables) == before | with_stage_ids
        assert await migrations.not_ready_reason(connection) is None
    async with running_recorder(empty_database) as recorder:
        await recorder.record(webhook("e3", "C", "09:30"), read("C", "09:30", "09:40", "09:10"), webhook("e2", "B", "09:03"))
        assert [(row["id"] > 3, row["stage_from"], row["stage_to"]) for row in await recorder.records()] == [
            (False, None, "A"),
            (False, "A", "B"),
            (True, "B", "C"),
        ]
