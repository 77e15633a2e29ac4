"""The README tells the truth: its tables are held against the code, its commands against what the checkout runs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fubd.__main__ import main
from fubd.metrics import Metrics
from fubd.settings import Settings, variables

_CHECKOUT = Path(__file__).parents[1]
_README = (_CHECKOUT / "README.md").read_text(encoding="utf-8")
_TICKED = re.compile("`([^`]+)`")


def _table(heading: str) -> list[list[str]]:
    """Give the rows of the first table below a heading, cell by cell."""
    below = _README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_settings() -> None:
    """Every variable is in the table with its older names and its default, in the order of the code, and nothing else is."""
    told: dict[str, tuple[tuple[str, ...], list[str]]] = {}
    for names, default, meaning in _table("Settings"):
        name, *aliases = _TICKED.findall(names)
        told[name] = (tuple(aliases), _TICKED.findall(default))
        assert meaning
    expected: dict[str, tuple[tuple[str, ...], list[str]]] = {}
    for (name, known), field in zip(variables().items(), Settings.model_fields.values(), strict=True):
        value = field.get_default(call_default_factory=True)
        expected[name] = (known, [] if value is None else [_written(value)])
    assert told == expected
    assert list(told) == list(expected)


def _written(default: object) -> str:
    """Write a default as one would write it into the environment."""
    if isinstance(default, str):
        return default
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return json.dumps(dict(default) if isinstance(default, Mapping) else default)


def test_metrics() -> None:
    """Every metric is in the table with its labels and its type, and nothing else is."""
    metrics = Metrics(CollectorRegistry())
    metrics.build_info.labels("1.0", "abc")
    expected = {}
    for family in metrics.registry.collect():
        name = family.name.removeprefix("fubd_") + ("_total" if family.type == "counter" else "")
        expected[name] = (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
    told = {}
    for metric, kind, meaning in _table("Metrics"):
        name, _, labels = metric.strip("`}").partition("{")
        told[name] = (kind, set(labels.split(",")) - {""})
        assert meaning
    assert told == expected


def test_modules() -> None:
    """Every module of fubd is in the table, and nothing else is."""
    found = {
        path.name + ("/" if path.is_dir() else "")
        for path in (_CHECKOUT / "fubd").iterdir()
        if path.name not in {"__init__.py", "py.typed", "__pycache__"}
    }
    assert {_TICKED.findall(row[0])[0] for row in _table("The house")} == found


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that the program has is in the table, and nothing else is."""
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)) - {"COMMAND"}
    told = {shlex.split(_TICKED.findall(row[0])[0])[1:2][0] for row in _table("Run it")[1:]}
    assert told == known | {"--poll-only"}


def test_the_two_commands() -> None:
    """A new user's two commands are there, one line each, and the second is what the checkout's own run uses."""
    first, second = re.findall(r"^python3 -m venv .*$", _README, re.MULTILINE)
    assert first.endswith("pip install -q -e '.[embedded]' && .venv/bin/python -m fubd demo")
    assert second.endswith("pip install -q -e '.[test]' && .venv/bin/python -m pytest")
    assert second in [line.strip() for line in (_CHECKOUT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]


def test_links() -> None:
    """Every file the README points to is there."""
    assert [path for path in re.findall(r"\]\(([^)#:]+)\)", _README) if not (_CHECKOUT / path).exists()] == []
