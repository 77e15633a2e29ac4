"""The documents agree with the program: their tables with the code, their commands with the checkout, their links with the files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from datetime import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fubd.commands.command_line import run
from fubd.metrics import Metrics
from fubd.settings import Settings, load, variables
from tests.support.documents import anchors, relative_links, table

_CHECKOUT = Path(__file__).parents[1]
_README = (_CHECKOUT / "README.md").read_text(encoding="utf-8")
_CODE = re.compile("`([^`]+)`")
DOCUMENTS = sorted(
    path
    for path in _CHECKOUT.rglob("*.md")
    if not any(part.startswith(".") and part != ".github" for part in path.relative_to(_CHECKOUT).parts)
)


def test_the_settings_table_is_complete() -> None:
    """The table has every variable with its older names and its default, in the order of the code, and nothing else."""
    documented: dict[str, tuple[tuple[str, ...], list[str]]] = {}
    for names, default, meaning in table(_README, "Settings"):
        name, *aliases = _CODE.findall(names)
        documented[name] = (tuple(aliases), _CODE.findall(default))
        assert meaning
    expected: dict[str, tuple[tuple[str, ...], list[str]]] = {}
    for (name, known), field in zip(variables().items(), Settings.model_fields.values(), strict=True):
        value = field.get_default(call_default_factory=True)
        expected[name] = (known, [] if value is None else [_as_variable(value)])
    assert documented == expected
    assert list(documented) == list(expected)


def _as_variable(default: object) -> str:
    """Return a default as it would be written into the environment."""
    if isinstance(default, str):
        return default
    if isinstance(default, time):
        return f"{default:%H:%M}"
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return json.dumps(dict(default) if isinstance(default, Mapping) else default)


def test_the_metrics_table_is_complete() -> None:
    """The table has every metric with its labels and its type, and nothing else."""
    metrics = Metrics(CollectorRegistry())
    metrics.build_info.labels("1.0", "abc")
    expected = {}
    for family in metrics.registry.collect():
        name = family.name.removeprefix("fubd_") + ("_total" if family.type == "counter" else "")
        expected[name] = (family.type, {label for sample in family.samples for label in sample.labels} - {"le"})
    documented = {}
    for metric, kind, meaning in table((_CHECKOUT / "deploy" / "metrics.md").read_text(encoding="utf-8"), "Metrics"):
        name, _, labels = metric.strip("`}").partition("{")
        documented[name] = (kind, set(labels.split(",")) - {""})
        assert meaning
    assert documented == expected


def test_the_module_table_is_complete() -> None:
    """The table in fubd/README.md has every module of fubd, and nothing else."""
    modules = {
        path.name + ("/" if path.is_dir() else "")
        for path in (_CHECKOUT / "fubd").iterdir()
        if path.name not in {"README.md", "__init__.py", "py.typed", "__pycache__"}
    }
    text = (_CHECKOUT / "fubd" / "README.md").read_text(encoding="utf-8")
    documented = [name for row in table(text, "Modules") for name in _CODE.findall(row[0])]
    assert sorted(documented) == sorted(modules)


def test_the_command_table_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """The table has every command of the program, and nothing else."""
    with pytest.raises(SystemExit):
        run(["--help"])
    commands = set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)) - {"COMMAND"}
    documented = {shlex.split(_CODE.findall(row[0])[0])[1:2][0] for row in table(_README, "Run it")[1:]}
    assert documented == commands | {"--poll-only"}


def test_the_command_table_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """The row of a command has each of its options; the line below the table has those that many commands share."""
    below = re.findall(r"^Each has .*?\n\n", _README, re.MULTILINE | re.DOTALL)[0]
    for row in table(_README, "Run it")[1:]:
        name = shlex.split(_CODE.findall(row[0])[0])[1]
        with pytest.raises(SystemExit):
            run(["--help"] if name.startswith("-") else [name, "--help"])
        options = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)) - {"--version"}
        assert "--help" in options, name
        assert {option for option in options if option not in row[0] + row[1] + below} == set(), name


def test_the_two_commands_are_one_line_each() -> None:
    """The two commands of a new user are there, and .ci/run uses the second."""
    first, second = re.findall(r"^python3 -m venv .*$", _README, re.MULTILINE)
    assert first.endswith("pip install -q -e '.[embedded]' && .venv/bin/python -m fubd demo")
    assert second.endswith("pip install -q -e '.[test]' && .venv/bin/python -m pytest")
    assert second in [line.strip() for line in (_CHECKOUT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]


def test_the_example_of_a_configuration_is_true() -> None:
    """Each line of .env.example, with and without its `#`, names a variable that exists; what has a value there is accepted."""
    lines = re.findall(r"^(?:# )?([A-Z_]+)=(.*)$", (_CHECKOUT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    ours = {name: value for name, value in lines if not name.startswith("RAILWAY_")}
    assert list(ours)[:4] == ["FUB_API_KEY", "FUB_SYSTEM", "FUB_SYSTEM_KEY", "DATABASE_URL"]
    assert set(ours) <= set(variables())
    load(ours, env_file=None)


@pytest.mark.parametrize("guide", ["README.md", "deploy/README.md"])
def test_each_command_of_ours_has_its_powershell_form(guide: str) -> None:
    """Each fubd command in a shell block, other than for Docker, systemd and Railway's ssh, is in a PowerShell block too."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (_CHECKOUT / guide).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    commands: dict[str, set[str]] = {"sh": set(), "powershell": set()}
    for language, text in blocks:
        for line in text.splitlines():
            if language in commands and not line.startswith(("docker", "sudo", "railway ssh")):
                commands[language] |= set(re.findall(r"-m (fubd(?: [a-z-]+)?)", line))
    assert commands["sh"]
    assert commands["sh"] <= commands["powershell"]


def test_the_readme_begins_with_what_a_newcomer_asks() -> None:
    """what, for which users, why and the way to the data are within 60 lines; pictures, an example row and a query within 110."""
    lines = _README.splitlines()
    beginning, first_pages = "\n".join(lines[:60]), "\n".join(lines[:110])
    assert all(text in beginning for text in ("Who it is for", "Why not two scripts", "97,000", "fewer\nthan 300", "(#the-data)"))
    assert len(re.findall(r"^!\[", first_pages, re.MULTILINE)) == 2
    assert "| `changed_at` | `" in first_pages
    assert "```sql" in first_pages


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(_CHECKOUT).as_posix())
def test_every_link_resolves(document: Path) -> None:
    """Each relative link leads to a file that is there, and each anchor to a heading of it."""
    text = document.read_text(encoding="utf-8")
    for path, anchor in relative_links(text):
        file = document.parent / path if path else document
        assert file.exists(), path
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{path}#{anchor}"


def test_every_fact_about_the_api_has_a_source() -> None:
    """Each row of the tables in fubd/client/README.md has a URL or says that it was observed."""
    text = (_CHECKOUT / "fubd" / "client" / "README.md").read_text(encoding="utf-8")
    rows = [row.strip("|").split("|") for row in re.findall(r"^\|.*$", text, re.MULTILINE) if not row.startswith(("| fact", "|---"))]
    assert len(rows) > 50
    assert [fact for fact, source in rows if "https://" not in source and "observed" not in source] == []
