from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.deploy.dockerfile import BuildContext, Image, stages
from tests.deploy.programs import CHECKOUT, run
from tests.support.ports import free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

DOCKERFILE = CHECKOUT / "Dockerfile"
LOCK = CHECKOUT / "deploy" / "requirements.txt"
SETTINGS = {
    "FUB_API_KEY": "invented-api-key",
    "FUB_SYSTEM_KEY": "invented-system-key",
    # Nothing listens there: the daemon has to work without the API and the database.
    "FUB_API_URL": "http://127.0.0.1:9",
    "DATABASE_URL": "postgresql://fubd:invented@127.0.0.1:9/fubd",
}


def locked() -> dict[str, Requirement]:
    """Return the locked requirements by name."""
    text = re.sub(r"\s*\\\n\s+--hash=\S+", "", LOCK.read_text())
    found = [Requirement(line) for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return {requirement.name: requirement for requirement in found}


def test_the_list_of_components_is_that_of_the_lock() -> None:
    """deploy/sbom.json names every locked package with its version, and no other."""
    components = json.loads((CHECKOUT / "deploy" / "sbom.json").read_text(encoding="utf-8"))["components"]
    assert {f"{made['name']}=={made['version']}" for made in components} == {f"{made.name}{made.specifier}" for made in locked().values()}


def test_the_commands_that_pin_the_base_image_are_for_the_image_in_use() -> None:
    """The Dockerfile's default, and the commands in it and in the guide, name the same one."""
    dockerfile, guide = (
        (CHECKOUT / "Dockerfile").read_text(encoding="utf-8"),
        (CHECKOUT / "deploy" / "README.md").read_text(encoding="utf-8"),
    )
    (used,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    for text in (dockerfile, guide):
        assert f"docker buildx imagetools inspect {used} --format '{{{{.Manifest.Digest}}}}'" in text
        assert f"--build-arg PYTHON_IMAGE={used}@sha256:" in text


def file_states(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file under a folder with its size and modification time."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def forbid_writing(folder: Path, *, forbid: bool) -> None:
    """Remove the write permission in a folder for all users, or give it back to the owner."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o777
            path.chmod(mode & ~0o222 if forbid else mode | 0o200)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build the image's content once, and make it and a home folder read-only."""
    root = tmp_path_factory.mktemp("root")
    built = Image(root)
    asyncio.run(built.build(DOCKERFILE.read_text(encoding="utf-8")))
    (root / "home").mkdir()
    built.environ["HOME"] = str(root / "home")
    forbid_writing(root, forbid=True)
    yield built
    forbid_writing(root, forbid=False)


@pytest.fixture
async def running(image: Image) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Start the image's command without a database; yield the process and its port."""
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


async def test_hadolint_accepts_the_dockerfile() -> None:
    """Hadolint finds nothing in the Dockerfile."""
    ended = await run(str(Path(sys.executable).parent / "hadolint"), "--no-color", str(DOCKERFILE))
    assert ended.code == 0, ended.report


def test_the_last_stage_is_minimal() -> None:
    """The last stage runs no command, so it holds no compiler; it is not root, has no volume, and starts fubd without a shell."""
    before, build, last = stages(DOCKERFILE.read_text())
    assert [instruction.text for instruction in before] == ["PYTHON_IMAGE=python:3.13-slim"]
    assert build[0].text == "${PYTHON_IMAGE} AS build"
    found = {instruction.keyword: instruction.text for instruction in last}
    assert found["FROM"] == "${PYTHON_IMAGE}"
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", found["USER"])
    assert found["CMD"] == '["python", "-m", "fubd"]'
    assert not found.keys() & {"RUN", "VOLUME", "ENTRYPOINT", "SHELL", "ADD"}


def test_the_build_context_is_minimal() -> None:
    """Only the package and the lock file reach the builder: no `.env` of a working directory, no tests."""
    assert BuildContext.read().included == ("fubd", "deploy/requirements.txt")


def test_the_image_leaves_out_the_demo(image: Image) -> None:
    """The demo and the simulated account are not in the image; every other folder of the package is."""
    folders = {path.name for path in (CHECKOUT / "fubd").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {path.name for path in (image.folder / "fubd").iterdir() if path.is_dir()} - {"__pycache__"} == folders - {"demo", "simulator"}


async def test_the_image_says_that_it_has_no_demo(image: Image) -> None:
    """`fubd demo` in the image ends with 1 and one line."""
    ended = await image.run(*image.command, "demo")
    assert (ended.code, ended.error.count("\n")) == (1, 1), ended.report
    assert "does not include the demo" in ended.error


def test_the_lock_holds_the_dependencies() -> None:
    """Each dependency is locked to one version that pyproject.toml accepts, with hashes, and no package index is named."""
    wanted = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lock = locked()
    for requirement in map(Requirement, wanted):
        (version,) = lock[requirement.name].specifier
        assert version.operator == "=="
        assert requirement.specifier.contains(version.version), requirement
    text = LOCK.read_text()
    assert all(re.search(rf"^{re.escape(name)}==\S+( ; [^\\]+)? \\\n    --hash=sha256:", text, re.MULTILINE) for name in lock)
    assert "://" not in text
    assert not re.search(r"^-", text, re.MULTILINE)


async def test_the_image_starts_without_write_permission(image: Image) -> None:
    """`python -m fubd --help` exits 0 for an unprivileged user with a read-only installation and home."""
    before = file_states(image.root)
    ended = await image.run(*image.command, "--help")
    assert ended.code == 0, ended.report
    assert "usage" in ended.out.lower()
    assert file_states(image.root) == before


async def test_the_user_cannot_write(image: Image) -> None:
    """The user of these tests can write neither into the installation nor into the home folder."""
    for folder in (image.folder, Path(image.environ["HOME"])):
        ended = await image.run("/bin/sh", "-c", f"touch {folder}/written")
        assert ended.code != 0
        assert not (folder / "written").exists()


async def test_the_image_names_missing_settings(image: Image) -> None:
    """Without settings the image's command ends with 2 and names each variable, without a traceback."""
    ended = await image.run(*image.command)
    assert ended.code == 2, ended.report
    assert "FUB_API_KEY" in ended.error
    assert "FUB_SYSTEM_KEY" in ended.error
    assert "Traceback" not in ended.report


async def test_the_image_stays_up_without_a_database(image: Image, running: tuple[asyncio.subprocess.Process, str]) -> None:
    """The image's health check passes while the database is out of reach, and SIGTERM ends the process with 0 within 10 s."""
    process, port = running

    async def healthy() -> bool:
        assert process.returncode is None
        return (await image.run(*image.health_check, PORT=port)).code == 0

    before = file_states(image.root)
    assert await eventually(healthy, 30.0)
    os.kill(process.pid, 15)
    async with asyncio.timeout(10):
        assert await process.wait() == 0
    assert file_states(image.root) == before


async def test_the_health_check_fails_without_a_listener(image: Image) -> None:
    """The image's health check fails when nothing answers."""
    ended = await image.run(*image.health_check, PORT=str(free_port()))
    assert ended.code == 1
