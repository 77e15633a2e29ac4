from __future__ import annotations

import asyncio
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.deploy.dockerfile import Image, copied_from_the_checkout, stages
from tests.deploy.programs import CHECKOUT, run
from tests.support.ports import free_port
from tests.support.waiting import eventually

DOCKERFILE = CHECKOUT / "Dockerfile"
LOCK = CHECKOUT / "deploy" / "requirements.txt"
SETTINGS = {
    "FUB_API_KEY": "invented-api-key",
    "FUB_SYSTEM_KEY": "invented-system-key",
    # Nobody listens there: the daemon has to live without.
    "FUB_API_URL": "http://127.0.0.1:9",
    "DATABASE_URL": "postgresql://fubd:invented@127.0.0.1:9/fubd",
}


def locked() -> dict[str, Requirement]:
    """Give what is locked, by name."""
    text = re.sub(r"\s*\\\n\s+--hash=\S+", "", LOCK.read_text())
    found = [Requirement(line) for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {requirement.name: requirement for requirement in found}


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Give every file under a folder with its size and when it was last changed."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def forbid_writing(folder: Path, *, forbid: bool) -> None:
    """Take from everybody the right to write in a folder, or give it back to the owner."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o777
            path.chmod(mode & ~0o222 if forbid else mode | 0o200)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build the image's content once, and make it and a home read-only."""
    root = tmp_path_factory.mktemp("root")
    made = Image(root)
    asyncio.run(made.build(DOCKERFILE.read_text()))
    (root / "home").mkdir()
    made.environ["HOME"] = str(root / "home")
    forbid_writing(root, forbid=True)
    yield made
    forbid_writing(root, forbid=False)


@pytest.fixture
async def running(image: Image) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start the image's command without a database; gives the process and its port."""
    port = str(free_port())
    process = await asyncio.create_subprocess_exec(
        *image.start(*image.command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=image.folder,
        env={**image.environ, **SETTINGS, "PORT": port},
    )
    yield process, port
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_the_dockerfile_is_clean() -> None:
    """Hadolint finds nothing in the Dockerfile."""
    ended = await run(str(Path(sys.executable).parent / "hadolint"), "--no-color", str(DOCKERFILE))
    assert ended.code == 0, ended.told


def test_the_last_stage_runs_nothing_and_is_nobody() -> None:
    """The last stage runs no command and so brings no compiler, is not root, has no volume, and starts fubd without a shell."""
    before, build, last = stages(DOCKERFILE.read_text())
    assert [instruction.text for instruction in before] == ["PYTHON_IMAGE=python:3.13-slim"]
    assert build[0].text == "${PYTHON_IMAGE} AS build"
    found = {instruction.keyword: instruction.text for instruction in last}
    assert found["FROM"] == "${PYTHON_IMAGE}"
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", found["USER"])
    assert found["CMD"] == '["python", "-m", "fubd"]'
    assert not found.keys() & {"RUN", "VOLUME", "ENTRYPOINT", "SHELL", "ADD"}


def test_the_context_holds_no_more_than_needed() -> None:
    """Nothing but the package and the lock reaches the builder: no secret of a working directory, no tests."""
    assert copied_from_the_checkout() == ["fubd", "deploy/requirements.txt"]


def test_the_lock_holds_the_dependencies() -> None:
    """Each dependency is locked to one version that pyproject.toml accepts, each with hashes, and no index is named."""
    wanted = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    lock = locked()
    for requirement in map(Requirement, wanted):
        (version,) = lock[requirement.name].specifier
        assert version.operator == "=="
        assert requirement.specifier.contains(version.version), requirement
    text = LOCK.read_text()
    assert all(re.search(rf"^{re.escape(name)}==\S+( ; [^\\]+)? \\\n    --hash=sha256:", text, re.MULTILINE) for name in lock)
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


async def test_the_image_starts_for_somebody_who_may_write_nothing(image: Image) -> None:
    """With the image's own steps and a read-only checkout and home, `python -m fubd --help` exits 0 for an unprivileged user."""
    before = written(image.root)
    ended = await image.run(*image.command, "--help")
    assert ended.code == 0, ended.told
    assert "usage" in ended.out.lower()
    assert written(image.root) == before


async def test_nobody_can_write(image: Image) -> None:
    """The user of these tests can indeed write neither into the checkout nor into the home."""
    for folder in (image.folder, Path(image.environ["HOME"])):
        ended = await image.run("/bin/sh", "-c", f"touch {folder}/written")
        assert ended.code != 0
        assert not (folder / "written").exists()


async def test_the_image_says_what_is_missing(image: Image) -> None:
    """Without settings the image's command ends with 2 and names each variable, without a traceback."""
    ended = await image.run(*image.command)
    assert ended.code == 2, ended.told
    assert "FUB_API_KEY" in ended.error
    assert "FUB_SYSTEM_KEY" in ended.error
    assert "Traceback" not in ended.told


async def test_the_image_lives_without_a_database(image: Image, running: tuple[asyncio.subprocess.Process, str]) -> None:
    """The image's health check passes while the database is out of reach, and SIGTERM ends the process with 0 within 10 s."""
    process, port = running

    async def healthy() -> bool:
        assert process.returncode is None
        return (await image.run(*image.health, PORT=port)).code == 0

    before = written(image.root)
    assert await eventually(healthy, 30.0)
    os.kill(process.pid, 15)
    async with asyncio.timeout(10):
        assert await process.wait() == 0
    assert written(image.root) == before


async def test_the_health_check_fails_where_nobody_listens(image: Image) -> None:
    """The image's health check fails when nothing answers."""
    ended = await image.run(*image.health, PORT=str(free_port()))
    assert ended.code == 1
