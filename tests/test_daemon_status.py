"""What open pages show is read once for all of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from typing_extensions import override

from fubd.clock import SystemClock
from fubd.daemon_status import SharedOverview
from fubd.errors import Unavailable
from fubd.ports import Committed
from fubd.server import EventStream, ReadThrottle, ServerLimits
from fubd.store import ChangeReader, OverviewReader, OverviewSpan, Pool, StoredOverview
from fubd.store.dsn import parse

NOON = datetime(2031, 3, 3, 12, tzinfo=UTC)
SPAN = OverviewSpan(NOON - timedelta(days=1), 300, 288, NOON, NOON, NOON, NOON, NOON)


class CountedReader(OverviewReader):
    """Counts its reads; fails while `is_away`."""

    reads = 0
    is_away = False

    @override
    async def read(self, span: OverviewSpan, *, recent: int) -> StoredOverview:
        self.reads += 1
        if self.is_away:
            raise Unavailable("the database does not answer")
        return await super().read(span, recent=recent)


def _later(seconds: float) -> OverviewSpan:
    return replace(SPAN, now=NOON + timedelta(seconds=seconds))


async def test_pages_share_an_overview_until_something_changes(database: str) -> None:
    """Pages that ask together or within seconds cause one read; a commit, another mode, span or day, or 15 seconds, cause the next."""
    pool, limits = Pool(parse(database)), ServerLimits()
    changes = ChangeReader(pool)
    stream = EventStream(changes, ReadThrottle(limits), SystemClock(), limits)
    reader = CountedReader(changes)
    shared = SharedOverview(reader, stream)
    await asyncio.gather(*(shared.read(_later(second), mode="steady") for second in range(10)))
    assert reader.reads == 1
    stream.on_commit(Committed(recorded=(1,), updated=()))
    await shared.read(_later(10), mode="steady")
    assert reader.reads == 2
    await shared.read(_later(11), mode="failover")
    assert reader.reads == 3
    await shared.read(replace(_later(11), buckets=60), mode="failover")
    assert reader.reads == 4
    await shared.read(replace(_later(12), today=NOON + timedelta(seconds=12)), mode="failover")
    assert reader.reads == 5
    await shared.read(replace(_later(27.5), today=NOON + timedelta(seconds=12)), mode="failover")
    assert reader.reads == 6
    await pool.close()


async def test_a_read_that_failed_is_not_shared(database: str) -> None:
    """The next page asks again."""
    pool, limits = Pool(parse(database)), ServerLimits()
    changes = ChangeReader(pool)
    reader = CountedReader(changes)
    shared = SharedOverview(reader, EventStream(changes, ReadThrottle(limits), SystemClock(), limits))
    reader.is_away = True
    with pytest.raises(Unavailable):
        await shared.read(SPAN, mode="steady")
    reader.is_away = False
    assert (await shared.read(SPAN, mode="steady")).recent == []
    await pool.close()
