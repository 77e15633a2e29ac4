"""The rules that tools can check: style, format, types, and who may import whom."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import program

_CHECKOUT = Path(__file__).parents[1]
_TOOLS = Path(sys.executable).parent

# A rule is followed, or left out for all in pyproject.toml with its reason; never for one line.
_EXCEPTION = re.compile(r"#\s*(?:noqa|type:\s*ignore|pragma|pylint|ruff:)")


@pytest.mark.parametrize(
    "command",
    ["ruff check --no-cache", "ruff format --check --no-cache", "mypy", "lint-imports --no-cache"],
)
async def test_the_rules_hold(command: str) -> None:
    """Each tool passes on the whole checkout, as pyproject.toml sets it up."""
    tool, *arguments = command.split()
    async with program(_TOOLS / tool, *arguments, folder=_CHECKOUT) as process:
        code = await process.ended(within_seconds=300)
    assert code == 0, "\n".join([*process.lines[-60:], *process.errors[-20:]])


def test_no_rule_is_switched_off() -> None:
    """No line of code or test asks a tool to look away."""
    found = [f"{path.relative_to(_CHECKOUT)}:{number}" for path, number, line in _lines() if _EXCEPTION.search(line)]
    assert found == []


def _lines() -> Iterator[tuple[Path, int, str]]:
    for folder in ("fubd", "tests"):
        for path in sorted((_CHECKOUT / folder).rglob("*.py")):
            if path != Path(__file__):
                yield from ((path, number, line) for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
