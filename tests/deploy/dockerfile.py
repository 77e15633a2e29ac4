"""The Dockerfile, carried out without an engine: each instruction under a folder of ours that stands for the image's root."""

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
from tests.support.programs import needs

_HOUSE = "/opt/fubd"
_NOBODY = "65534"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its keyword in capitals and what follows it, in one line."""

    keyword: str
    text: str


def stages(text: str) -> list[list[Instruction]]:
    """Read a Dockerfile: the instructions of each stage, the first its FROM. Arguments before the first stage are a stage of their own."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found: list[list[Instruction]] = [[]]
    for line in whole.splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            found.append([])
        found[-1].append(Instruction(keyword, rest.strip()))
    return found


@dataclass(slots=True)
class Image:
    """What was built. `root` stands for `/`; of everything the instructions name, only /opt/fubd is made in it."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    folder: Path = Path("/")
    command: tuple[str, ...] = ()
    health: tuple[str, ...] = ()

    async def build(self, dockerfile: str) -> None:
        """Carry out every instruction, in order."""
        for stage in stages(dockerfile)[1:]:
            self.environ = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOME": "/nonexistent"}
            for instruction in stage:
                await self._carry_out(instruction)

    def here(self, text: str) -> str:
        """Give a text of the image with its paths as they are on this machine."""
        return text.replace(_HOUSE, f"{self.root}{_HOUSE}")

    async def _carry_out(self, instruction: Instruction) -> None:
        text = instruction.text
        match instruction.keyword:
            case "RUN":
                ended = await run("/bin/sh", "-euc", self.here(text), environ={**os.environ, "PATH": self.environ["PATH"]})
                assert ended.code == 0, ended.told
            case "COPY":
                self._copy(text.split())
            case "ENV":
                for pair in shlex.split(text):
                    name, _, value = pair.partition("=")
                    self.environ[name] = self.here(value).replace("$PATH", self.environ["PATH"])
            case "WORKDIR":
                self.folder = Path(self.here(text))
            case "CMD":
                self.command = tuple(json.loads(text))
            case "HEALTHCHECK":
                self.health = tuple(json.loads(text.partition(" CMD ")[2]))

    def _copy(self, words: list[str]) -> None:
        source, target = words[-2:]
        assert target.startswith(_HOUSE)
        if words[0].startswith("--from="):
            # Both stages share the root, so what is copied to its own place is there.
            assert source == target
            return
        assert source in copied_from_the_checkout(), f"{source} is left out by .dockerignore"
        goal = Path(self.here(target))
        goal.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, goal, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(CHECKOUT / source, goal)

    def start(self, *arguments: str) -> tuple[str, ...]:
        """Give the command line of a program of the image, run as somebody who owns nothing and may write nowhere."""
        return (*_unprivileged(), *arguments)

    async def run(self, *arguments: str, **settings: str) -> Ended:
        """Run a program of the image so, with these variables and no others but the image's."""
        return await run(*self.start(*arguments), folder=self.folder, environ={**self.environ, **settings})


def copied_from_the_checkout() -> list[str]:
    """Give what .dockerignore lets through. Everything else is left out."""
    lines = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    return [line[1:] for line in lines if line.startswith("!")]


def _unprivileged() -> tuple[str, ...]:
    """As root: become nobody, who may read everything (the interpreter may lie in root's home) and write nothing. Else: stay who we are."""
    if os.getuid() != 0:
        return ()
    only = "-all,+dac_read_search"
    return (
        needs("setpriv"),
        *(f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"),
    )
