"""Programs of the machine that some tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_BESIDE_PATH = (Path("/usr/sbin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
_LIBRARIES = (Path("/usr/lib"), Path("/usr/local/lib"))


def needs(program: str, *alike: str) -> str:
    """Give the path of a program, or of one that does as well. Without any the test is skipped by the first one's name.

    Where CI=true promises that it is there, its absence is a failure.
    """
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), *map(str, _BESIDE_PATH)))
    found = next((path for name in (program, *alike) if (path := shutil.which(name, path=folders))), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needs the program {program}")
        pytest.skip(f"needs the program {program}")
    return found


def library(name: str) -> Path:
    """Give the path of a shared library of the machine, as `needs` does for a program."""
    found = next((path for folder in _LIBRARIES for path in folder.glob(f"*/{name}")), None)
    return found if found is not None else Path(needs(name))
