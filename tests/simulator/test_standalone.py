"""The simulator tried as a new user would: started alone, moved from outside, watched by a receiver."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from tests.simulator.caller import Caller
from tests.simulator.listener import Listener


@asynccontextmanager
async def alone(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run the simulator in a process of its own; gives it and its base URL."""
