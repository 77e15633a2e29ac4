"""The rules that tools can check: style, format, types, imports, and the sizes and names of the code."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import program

_CHECKOUT = Path(__file__).parents[1]
_TOOLS = Path(sys.executable).parent
_MAX_LINES = 450
_PORTS = _CHECKOUT / "fubd" / "ports.py"

# A rule is kept, or ignored everywhere in pyproject.toml with a reason; never for one line.
_SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore|pragma|pylint|ruff:)")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["ruff check --no-cache", "ruff format --check --no-cache", "mypy", "lint-imports --no-cache"],
)
async def test_each_tool_passes(command: str) -> None:
    """Each tool passes on the whole checkout, with the settings of pyproject.toml."""
    tool, *arguments = command.split()
    async with program(_TOOLS / tool, *arguments, folder=_CHECKOUT) as process:
        code = await process.ended(within_seconds=300)
    assert code == 0, "\n".join([*process.lines[-60:], *process.errors[-20:]])


def test_no_rule_is_suppressed_for_a_line() -> None:
    """No line of code or tests switches a rule off."""
    found = [
        f"{path.relative_to(_CHECKOUT)}:{number}"
        for path in _files("fubd", "tests")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if _SUPPRESSION.search(line)
    ]
    assert found == []


def test_files_are_short() -> None:
    """No Python file has more than 450 lines."""
    lengths = {str(path.relative_to(_CHECKOUT)): len(path.read_text(encoding="utf-8").splitlines()) for path in _files("fubd", "tests")}
    assert {path: lines for path, lines in lengths.items() if lines > _MAX_LINES} == {}


def test_package_files_hold_no_code() -> None:
    """An `__init__.py` only re-exports names."""
    found = [
        f"{path.relative_to(_CHECKOUT)}:{statement.lineno}"
        for path in _files("fubd", "tests")
        if path.name == "__init__.py"
        for statement in ast.parse(path.read_text(encoding="utf-8")).body
        if not _is_reexport(statement)
    ]
    assert found == []


def test_a_class_name_means_one_thing() -> None:
    """No class name is defined twice in fubd, except a protocol in ports.py and its one implementation."""
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for path in _files("fubd"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    for paths in places.values():
        if len(paths) > 1 and _PORTS in paths:
            paths.remove(_PORTS)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def _is_reexport(statement: ast.stmt) -> bool:
    """Return whether a statement is an import, a string, `__all__` or `__version__`."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
            return True
    return False


def _files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((_CHECKOUT / folder).rglob("*.py"))
