"""The environment of the processes that tests start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
# A process gets only these of our own environment variables: no setting may leak in.
_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")


def complete(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the whole environment of a process that gets these variables."""
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "PYTHONPATH": str(CHECKOUT),
        # pydantic would look for plugins in every package that the tests need, at each start.
        "PYDANTIC_DISABLE_PLUGINS": "1",
        # aiohttp loads the machine's CA certificates when it is imported, a twelfth of a start. No test reaches a public host.
        "SSL_CERT_FILE": os.devnull,
        **(environ or {}),
    }
