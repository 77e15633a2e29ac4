"""Documents: the tables, anchors and links of Markdown; YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def table(markdown: str, heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading, cell by cell."""
    below = re.split(rf"^#+ {re.escape(heading)}\n", markdown, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", below, flags=re.MULTILINE)[0]
    first = re.search(r"^\|.*\n\|-.*\n((?:\|.*\n?)+)", section, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in first[1].splitlines()] if first else []


def anchors(markdown: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", markdown), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def relative_links(markdown: str) -> list[tuple[str, str]]:
    """Return path and anchor of each link that stays in the checkout; an empty path is the document itself."""
    targets = [target for target in _LINK.findall(_FENCE.sub("", markdown)) if "://" not in target]
    return [(path, anchor) for path, _, anchor in (target.partition("#") for target in targets)]


def yaml_file(path: Path) -> dict[str, Any]:
    """Return the document in a YAML file, by libyaml: PyYAML's own reader would take a tenth of the time to collect the tests."""
    document: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return document
