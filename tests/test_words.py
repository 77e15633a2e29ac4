"""The words of the project: plain technical English in code, comments, SQL, JavaScript, documents and the names of tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]
_PLACES = ("fubd", "tests", "deploy", "grafana", ".ci", ".github", ".railway", "README.md", "pyproject.toml", "Dockerfile")
_SUFFIXES = {".css", ".html", ".js", ".json", ".md", ".py", ".service", ".sh", ".sql", ".toml", ".yaml", ".yml", ""}

# Each has a plainer word that a reader does not have to guess. Underscores separate words too, so names are searched as well.
_WORDS = (
    "told",
    "whoever",
    "whom",
    "anew",
    "seldom",
    "for ever",
    "bear",
    "bears",
    "mend",
    "mends",
    "mended",
    "mending",
    "the house",
    "the door",
)
_BANNED = re.compile(r"(?<![a-z])(?:" + "|".join(word.replace(" ", r"[ _\n]+") for word in _WORDS) + r")(?![a-z])", re.IGNORECASE)

# Applied migrations never change, nor does the text of the licence.
_EXEMPT_FILES = re.compile(r"fubd/sql/migrations/.*|\.github/LICENSE|tests/test_words\.py")
# A column of fubd.alert that an applied migration named.
_EXEMPT_NAMES = re.compile(r"\ba\.told\b|\(subject, told(, digest)?\)")


def test_no_banned_word_is_used() -> None:
    """Each banned word is reported with its file and line."""
    found = []
    for path in _text_files():
        text = _EXEMPT_NAMES.sub("", path.read_text(encoding="utf-8"))
        for match in _BANNED.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{_name(path)}:{line}: {match.group()}")
    assert found == []


def _text_files() -> Iterator[Path]:
    for place in _PLACES:
        path = _CHECKOUT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix in _SUFFIXES and "__pycache__" not in file.parts and not _EXEMPT_FILES.fullmatch(_name(file)):
                yield file


def _name(path: Path) -> str:
    return path.relative_to(_CHECKOUT).as_posix()
