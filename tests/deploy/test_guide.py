"""The guides name only commands, options and variables that exist."""

from __future__ import annotations

import re
import sys

import pytest
import yaml

from fubd.settings import variables
from tests.deploy.programs import CHECKOUT, run

pytestmark = pytest.mark.slow

GUIDES = ("README.md", "deploy/README.md", "deploy/data.md", "grafana/README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md")
_OURS = re.compile(r"\b(?:FUB|FUBD|DATABASE|SUPABASE|WEBHOOK|POLLING|PUBLIC|RAILWAY|POSTGRES|GRAFANA)_[A-Z_]+\b")


def known_variables() -> set[str]:
    """Return every variable that something reads: fubd, the compose file, and Railway as our file for it names them."""
    settings = {name for names in variables().items() for name in (names[0], *names[1])}
    composed = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())["services"]
    return settings | set(_OURS.findall(str(composed))) | set(_OURS.findall((CHECKOUT / ".railway" / "railway.py").read_text()))


@pytest.mark.parametrize("name", GUIDES)
def test_every_variable_exists(name: str) -> None:
    """Each variable a guide names is one that fubd, the compose file or the platform reads."""
    named = set(_OURS.findall((CHECKOUT / name).read_text()))
    assert named <= known_variables()
    assert named or name == ".github/CONTRIBUTING.md"


@pytest.mark.parametrize("name", GUIDES)
async def test_every_command_exists(name: str) -> None:
    """Each command and option in a guide is one that fubd has."""
    named: dict[str, set[str]] = {}
    for text in re.findall(r"-m fubd((?: --?[a-z-]+| [a-z]+)*)", (CHECKOUT / name).read_text()):
        words = text.split()
        command = words[0] if words and not words[0].startswith("-") else ""
        named.setdefault(command, set()).update(word for word in words if word.startswith("--"))
    assert named or name in {"deploy/data.md", "grafana/README.md", ".github/CONTRIBUTING.md"}
    for command, options in named.items():
        ended = await run(sys.executable, "-m", "fubd", *filter(None, [command]), "--help")
        assert ended.code == 0, ended.report
        assert all(option in ended.out for option in options), options
