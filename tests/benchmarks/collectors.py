"""The yardsticks: a route that only verifies, and a collector that handles each delivery on its own connection.

Run as `python -m tests.benchmarks.collectors bare|single PORT [DSN]`; both verify exactly as fubd does and listen on loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import datetime
from typing import Any

import asyncpg
from aiohttp import web

from fubd.core.webhook import verify
from fubd.errors import InvalidSignature
from fubd.store.dsn import parse

KEY = b"benchmark-system-key"

_SCHEMA = """
DROP SCHEMA IF EXISTS collector CASCADE;
CREATE SCHEMA collector;
CREATE TABLE collector.delivery (event_id text PRIMARY KEY, received_at timestamptz NOT NULL DEFAULT now(), body text NOT NULL);
CREATE TABLE collector.change (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person_id text NOT NULL, stage_from text, stage_to text NOT NULL,
    changed_at timestamptz NOT NULL, event_id text NOT NULL, UNIQUE (event_id, person_id)
);
CREATE INDEX ON collector.change (person_id, changed_at);
"""


async def bare(request: web.Request) -> web.Response:
    """Verify the signature and store nothing."""
    body = await request.read()
    try:
        verify(body, request.headers.get("FUB-Signature"), (KEY,))
    except InvalidSignature:
        return web.Response(status=401)
    return web.Response()


class Single:
    """A script without batching, one delivery after the other: connect, write the delivery and the row, commit, answer."""

    def __init__(self, dsn: str) -> None:
        self._arguments = parse(dsn).connect_arguments()
        self._one_by_one = asyncio.Lock()

    async def prepare(self, _app: web.Application) -> None:
        """Create the collector's tables."""
        connection = await asyncpg.connect(**self._arguments)
        await connection.execute(_SCHEMA)
        await connection.close()

    async def answer(self, request: web.Request) -> web.Response:
        """Verify, store, answer."""
        body = await request.read()
        try:
            verify(body, request.headers.get("FUB-Signature"), (KEY,))
        except InvalidSignature:
            return web.Response(status=401)
        event = json.loads(body)
        async with self._one_by_one:
            await self._store(event, body)
        return web.Response()

    async def _store(self, event: dict[str, Any], body: bytes) -> None:
        connection = await asyncpg.connect(**self._arguments)
        try:
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO collector.delivery (event_id, body) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    event["eventId"],
                    body.decode(),
                )
                for person in event["resourceIds"]:
                    await connection.execute(
                        "INSERT INTO collector.change (person_id, stage_from, stage_to, changed_at, event_id)"
                        " VALUES ($1, (SELECT stage_to FROM collector.change WHERE person_id = $1 ORDER BY changed_at DESC LIMIT 1),"
                        " $2, $3, $4) ON CONFLICT DO NOTHING",
                        str(person),
                        event["data"]["stage"],
                        datetime.fromisoformat(event["eventCreated"]),
                        event["eventId"],
                    )
        finally:
            await connection.close()


def main() -> None:
    """Serve the yardstick named by the arguments until stopped."""
    kind, port = sys.argv[1], int(sys.argv[2])
    app = web.Application()
    if kind == "bare":
        app.router.add_post("/webhook/fub", bare)
    else:
        single = Single(os.environ["DATABASE_URL"])
        app.on_startup.append(single.prepare)
        app.router.add_post("/webhook/fub", single.answer)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
