"""`forget` as a user runs it; what it removes is proved in tests/store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.environment import run_command
from tests.recorder import read, running_recorder, webhook

pytestmark = pytest.mark.slow


async def test_a_person_is_forgotten(database: str, tmp_path: Path) -> None:
    """With --yes; without it and without a terminal nothing changes. Stages and times stay."""
    environ = {"DATABASE_URL": database}
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "08:00", "09:00"), webhook("e1", "B", "10:00"))
    asked = await run_command("forget", "1", environ=environ, folder=tmp_path)
    assert asked.code == 1
    assert "person 1 (Ada Example)" in asked.errors[0]
    assert (await run_command("explain", "Ada", environ=environ, folder=tmp_path)).code == 0
    assert (await run_command("forget", "1", "--yes", environ=environ, folder=tmp_path)).code == 0
    assert (await run_command("explain", "Ada", environ=environ, folder=tmp_path)).code == 1
    shown = (await run_command("explain", "1", environ=environ, folder=tmp_path)).lines
    assert shown[0] == "person 1"
    assert any("A -> B" in line for line in shown)


async def test_an_unknown_person_is_an_error(database: str, tmp_path: Path) -> None:
    """However large the id."""
    for person in ("77", "9" * 40):
        ended = await run_command("forget", person, "--yes", environ={"DATABASE_URL": database}, folder=tmp_path)
        assert (ended.code, ended.errors) == (1, [f"fubd: person {person} is unknown in this database: nothing was changed"])
