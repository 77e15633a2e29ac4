from __future__ import annotations

import re
import sys

import pytest
import yaml

from fubd.settings import variables
from tests.deploy.programs import CHECKOUT, run
from tests.deploy.test_rules import anchors

GUIDES = ("deploy/README.md", "grafana/README.md")
_OURS = re.compile(r"\b(?:FUB|FUBD|DATABASE|SUPABASE|WEBHOOK|POLLING|PUBLIC|RAILWAY|POSTGRES|GRAFANA)_[A-Z_]+\b")


def known_variables() -> set[str]:
    """Give every variable that something reads: fubd, the compose file, Railway as our file for it names them."""
    settings = {name for names in variables().items() for name in (names[0], *names[1])}
    composed = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())["services"]
    given = set(_OURS.findall(str(composed)))
    return settings | given | set(_OURS.findall((CHECKOUT / ".railway" / "railway.py").read_text()))


@pytest.mark.parametrize("name", GUIDES)
def test_every_link_leads_somewhere(name: str) -> None:
    """Each link into the checkout leads to a file that is there, and to a heading that it has."""
    guide = CHECKOUT / name
    for target in re.findall(r"\]\(([^)]+)\)", guide.read_text()):
        path, _, anchor = target.partition("#")
        file = guide if not path else guide.parent / path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("name", GUIDES)
def test_every_variable_is_read_by_something(name: str) -> None:
    """Each variable a guide names is one that fubd, the compose file or the platform reads."""
    assert set(_OURS.findall((CHECKOUT / name).read_text())) <= known_variables()


@pytest.mark.parametrize("name", GUIDES)
async def test_every_command_is_there(name: str) -> None:
    """Each command and option a guide tells to run is one that fubd has."""
    told: dict[str, set[str]] = {}
    for text in re.findall(r"-m fubd((?: --?[a-z-]+| [a-z]+)*)", (CHECKOUT / name).read_text()):
        words = text.split()
        command = words[0] if words and not words[0].startswith("-") else ""
        told.setdefault(command, set()).update(word for word in words if word.startswith("--"))
    for command, options in told.items():
        ended = await run(sys.executable, "-m", "fubd", *filter(None, [command]), "--help")
        assert ended.code == 0, ended.report
        assert all(option in ended.out for option in options), options
