"""Programs of the machine that some tests require."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_FOLDERS_OUTSIDE_PATH = (Path("/usr/sbin"), *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
_LIBRARIES = (Path("/usr/lib"), Path("/usr/local/lib"))


def require_program(program: str, *alternatives: str) -> str:
    """Return the path of a program or of an alternative. Without any of them the test is skipped, or fails where CI=true."""
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), *map(str, _FOLDERS_OUTSIDE_PATH)))
    found = next((path for name in (program, *alternatives) if (path := shutil.which(name, path=folders))), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"needs the program {program}")
        pytest.skip(f"needs the program {program}")
    return found


def require_library(name: str) -> Path:
    """Return the path of a shared library, with the same rule as `require_program`."""
    found = next((path for folder in _LIBRARIES for path in folder.glob(f"*/{name}")), None)
    return found if found is not None else Path(require_program(name))
