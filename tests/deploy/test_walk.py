"""The commands of the guide, run in its order against a simulated account, as far as one machine allows.

Stand-ins replace the rest of the world: Railway's program is a script that gives a command the service's variables, its edge is plain http,
and the environment that the guide installs is the one of these tests (`test_image` runs the installation itself).
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from fubd.store.dsn import parse
from tests.deploy.programs import CHECKOUT, Ended, run
from tests.stack import Stack, running_stack
from tests.support import legacy_tables
from tests.support.process import fubd
from tests.support.programs import require_program
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

GUIDE = (CHECKOUT / "deploy" / "README.md").read_text()
_STAND_INS = {
    ".venv/bin/python": f'exec {shlex.quote(sys.executable)} "$@"',
    ".venv/bin/pip": 'while [ "$1" != --requirement ]; do shift; done; test -s "$2"',
    "bin/python3": 'test "$*" = "-m venv .venv"',
    "bin/railway": 'test "$1" = run; shift; . ./service; exec "$@"',
    "bin/curl": (
        'begun=; for one; do [ "$begun" ] || set --; begun=yes; set -- "$@" "$(printf %s "$one" | sed s,^https:,http:,)"; done;'
        ' exec {curl} "$@"'
    ),
}


def blocks(heading: str) -> list[str]:
    """Return the code blocks under a heading of the guide that are for a shell or a file, in order."""
    _, _, rest = GUIDE.partition(f"\n## {heading}\n")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", rest.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    return [text for language, text in fenced if language in {"", "sh"}]


@dataclass
class Operator:
    """Follows the guide in a folder that looks like the checkout, with a file .env."""

    folder: Path
    environ: dict[str, str]

    def prepare(self) -> None:
        """Put the stand-ins where the guide's commands expect the programs."""
        (self.folder / "deploy").symlink_to(CHECKOUT / "deploy")
        for name, text in _STAND_INS.items():
            program = self.folder / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f"#!/bin/sh -eu\n{text.replace('{curl}', require_program('curl'))}\n")
            program.chmod(0o755)

    def write(self, name: str, lines: str) -> None:
        """Write a file of variables."""
        (self.folder / name).write_text(lines)

    async def run(self, commands: str) -> Ended:
        """Run commands of the guide unchanged."""
        environ = {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "HOME": str(self.folder), "PYTHONPATH": str(CHECKOUT), **self.environ}
        return await run("/bin/sh", "-euc", commands, folder=self.folder, environ=environ)


def operator_of(stack: Stack) -> Operator:
    """Return a prepared operator of the simulated account."""
    operator = Operator(stack.folder, {"FUB_API_URL": stack.environ["FUB_API_URL"]})
    operator.prepare()
    return operator


def filled(block: str, values: dict[str, str]) -> str:
    """Fill in the lines `NAME=...` of a block; each must have a value."""
    return re.sub(r"^(\w+)=\.\.\.$", lambda line: f"{line[1]}={values[line[1]]}", block, flags=re.MULTILINE)


async def test_from_nothing_to_a_running_service(empty_database: str, tmp_path: Path) -> None:
    """Each command ends as the guide says, a move is recorded within seconds, and at the end the audit finds no difference."""
    async with running_stack(empty_database, tmp_path, people=40) as stack:
        _, variables, installing, _, checking, audit = blocks("On Railway and Supabase")
        operator, database = operator_of(stack), {"DATABASE_URL": empty_database}
        values = {"FUB_API_KEY": stack.environ["FUB_API_KEY"], "FUB_SYSTEM": "fubd", "FUB_SYSTEM_KEY": stack.environ["FUB_SYSTEM_KEY"]}
        operator.write(".env", filled(variables, values | database))
        checked = await operator.run(installing)
        assert checked.code == 1, checked.report
        wrong = [line for line in checked.out.splitlines() if not line.startswith(("ok", "note"))]
        assert [line.split()[:2] for line in wrong[:-1]] == [["unknown", "webhooks"], ["fix", "public"]], checked.report

        service = {
            "PUBLIC_URL": stack.url,
            "RAILWAY_PUBLIC_DOMAIN": stack.url.removeprefix("http://"),
            "FUBD_METRICS_TOKEN": "invented-token-of-16",
        }
        operator.write("service", "".join(f"export {name}={shlex.quote(value)}\n" for name, value in service.items()))
        async with fubd(environ={**stack.environ, **service}, folder=tmp_path / "deploy") as daemon:
            await daemon.answers(f"{stack.url}/readyz")
            await eventually(lambda: _good(operator, checking), 30.0)
            stack.account.move(next(iter(stack.account.ids)), "Nurture")
            assert (await stack.final_score(20.0)).captured == 1
            ended = await operator.run(audit)
            assert ended.code == 0, ended.report


async def _good(operator: Operator, commands: str) -> bool:
    ended = await operator.run(commands)
    assert "All good." in ended.out, ended.report
    return ended.code == 0 and '"mode"' in ended.out


async def test_from_the_two_older_scripts_with_a_way_back(empty_database: str, tmp_path: Path) -> None:
    """With the older scripts' variables and webhooks: checked, adopted, restored, adopted again; the reports' answers never change."""
    check, fields, adopting, undoing, audit = blocks("From the two older scripts")
    async with running_stack(empty_database, tmp_path, people=40) as stack:
        connection = await asyncpg.connect(**parse(empty_database).connect_arguments())
        await legacy_tables.make(connection, rows=300)
        shape, reports = await legacy_tables.shape(connection), await legacy_tables.reports(connection)
        stack.simulator.subscribe("peopleStageUpdated", f"{stack.url}/webhook/fub/stage-change")
        operator = operator_of(stack)
        before = {
            "FUB_API_KEY": stack.environ["FUB_API_KEY"],
            "FUB_SYSTEM_KEY": stack.environ["FUB_SYSTEM_KEY"],
            "SUPABASE_DB_URL": empty_database,
            "WEBHOOK_BASE_URL": stack.url,
            "POLLING_INTERVAL": "1800",
        }
        variables = "".join(f"{name}={value}\n" for name, value in before.items())
        operator.write(".env", variables)
        checked = await operator.run(check)
        assert (checked.code, "run: python -m fubd adopt" in checked.out) == (1, True), checked.report

        operator.write(".env", variables + fields)
        # There is no terminal to ask on.
        for commands, left in ((adopting, None), (undoing, shape), (adopting, None)):
            ended = await operator.run(commands.rstrip() + " --yes")
            assert ended.code == 0, ended.report
            assert await legacy_tables.reports(connection) == reports
            # "What stops working when": a statement that names the removed index.
            if left is None:
                with pytest.raises(asyncpg.InvalidColumnReferenceError):
                    await connection.execute("INSERT INTO stage_changes (event_id) VALUES ('1') ON CONFLICT (event_id) DO NOTHING")
            assert left is None or await legacy_tables.shape(connection) == left

        async with fubd(environ={"PORT": str(stack.port), "FUBD_HOST": "127.0.0.1", **operator.environ}, folder=tmp_path) as daemon:
            await daemon.answers(f"{stack.url}/readyz")
            await eventually(lambda: _succeeds(operator, audit), 30.0)
            hooks = stack.simulator.registry.all()
            assert {hook.event: hook.url for hook in hooks}["peopleStageUpdated"] == f"{stack.url}/webhook/fub/stage-change"
            health = await stack.get("/health")
            assert set(health["subscriptions"].values()) == {"active"}
        assert (await connection.fetchrow("SELECT * FROM stage_changes ORDER BY id LIMIT 1"))["id"] == 1
        await connection.close()


async def _succeeds(operator: Operator, commands: str) -> bool:
    ended = await operator.run(commands)
    assert ended.code == 0, ended.report
    return True
