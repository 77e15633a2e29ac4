"""The Dockerfile, executed without a container engine: each instruction runs in a folder that stands for the image's root."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.programs import CHECKOUT, Ended, run
from tests.support.programs import require_program

_INSTALLED_IN = "/opt/fubd"
_UNPRIVILEGED_ID = "65534"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its keyword in capitals and its arguments in one line."""

    keyword: str
    text: str


def stages(text: str) -> list[list[Instruction]]:
    """Parse a Dockerfile into the instructions of each stage, FROM first. What stands before the first FROM is a stage of its own."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[list[Instruction]] = [[]]
    for line in joined.splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            found.append([])
        found[-1].append(Instruction(keyword, rest.strip()))
    return found


@dataclass(slots=True)
class Image:
    """The result of a build. `root` stands for `/`; of the paths that the instructions name, only /opt/fubd is created in it."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    folder: Path = Path("/")
    command: tuple[str, ...] = ()
    health_check: tuple[str, ...] = ()

    async def build(self, dockerfile: str) -> None:
        """Execute every instruction in order."""
        for stage in stages(dockerfile)[1:]:
            self.environ = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": "/nonexistent"}
            for instruction in stage:
                await self._execute(instruction)

    def _local(self, text: str) -> str:
        """Return a text with the image's paths replaced by those on this machine."""
        return text.replace(_INSTALLED_IN, f"{self.root}{_INSTALLED_IN}")

    async def _execute(self, instruction: Instruction) -> None:
        text = instruction.text
        match instruction.keyword:
            case "RUN":
                ended = await run("/bin/sh", "-euc", self._local(text), environ={**os.environ, "PATH": self.environ["PATH"]})
                assert ended.code == 0, ended.report
            case "COPY":
                self._copy(text.split())
            case "ENV":
                for pair in shlex.split(text):
                    name, _, value = pair.partition("=")
                    self.environ[name] = self._local(value).replace("$PATH", self.environ["PATH"])
            case "WORKDIR":
                self.folder = Path(self._local(text))
            case "CMD":
                self.command = tuple(json.loads(text))
            case "HEALTHCHECK":
                self.health_check = tuple(json.loads(text.partition(" CMD ")[2]))

    def _copy(self, words: list[str]) -> None:
        source, target = words[-2:]
        assert target.startswith(_INSTALLED_IN)
        if words[0].startswith("--from="):
            # Both stages share the root, so a folder that is copied to the same path is already there.
            assert source == target
            return
        context = BuildContext.read()
        assert source in context.included, f"{source} is left out by .dockerignore"
        goal = Path(self._local(target))
        goal.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, goal, ignore=context.ignore)
        else:
            shutil.copyfile(CHECKOUT / source, goal)

    def start(self, *arguments: str) -> tuple[str, ...]:
        """Return the command line that runs a program of the image as a user who owns nothing and can write nowhere."""
        return (*_as_unprivileged_user(), *arguments)

    async def run(self, *arguments: str, **settings: str) -> Ended:
        """Run a program of the image as that user, with the image's variables and these settings only."""
        return await run(*self.start(*arguments), folder=self.folder, environ={**self.environ, **settings})


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What .dockerignore lets through (`included`), and what it removes from that again (`excluded`: paths, or names after `**/`)."""

    included: tuple[str, ...]
    excluded: tuple[str, ...]

    @classmethod
    def read(cls) -> BuildContext:
        """Parse .dockerignore, which has to begin by excluding everything."""
        lines = [line for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
        assert lines[0] == "*"
        return cls(tuple(line[1:] for line in lines if line[0] == "!"), tuple(line for line in lines[1:] if line[0] != "!"))

    def ignore(self, folder: str, names: list[str]) -> set[str]:
        """Return the names in a folder of the checkout that are excluded, as `shutil.copytree` asks for them."""
        inside = Path(folder).relative_to(CHECKOUT)
        return {name for name in names if (inside / name).as_posix() in self.excluded or f"**/{name}" in self.excluded}


def _as_unprivileged_user() -> tuple[str, ...]:
    """As root: a user who can read everything (the interpreter may be in root's home) and write nothing. Else: no change."""
    if os.getuid() != 0:
        return ()
    only = "-all,+dac_read_search"
    return (
        require_program("setpriv"),
        *(f"--reuid={_UNPRIVILEGED_ID}", f"--regid={_UNPRIVILEGED_ID}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"),
    )
