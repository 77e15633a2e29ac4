"""200,000 people must be cheap. The yardstick is a known task on the same machine, so no test depends on its speed."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest

from fubd.simulator import Account, Behaviour, SimClock, Simulator
from fubd.simulator.query import encode_next, find_people, parse_filter, parse_paging
from tests.simulator.conftest import NINE

LARGE = 200_000
BYTES_PER_PERSON = 300 * 1024 * 1024 / LARGE
"""The memory per person if 200,000 are to fit into 300 MB, the interpreter included."""


def make(people: int) -> Account:
    """Return an account on a stopped clock."""
    return Account(seed=7, people=people, clock=SimClock(NINE, speed=0.0))


def seconds(act: Callable[[], object]) -> float:
    """Return the best time of five, so that other load on the machine does not count."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return min(times)


def test_memory() -> None:
    """Each person takes less than a tenth of the allowed memory."""
    make(10)
    tracemalloc.start()
    account = make(20_000)
    simulator = Simulator(account)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(simulator.account) == 20_000
    assert held / 20_000 < BYTES_PER_PERSON / 10


def test_start() -> None:
    """Creating an account takes less time than rendering half of its people once."""
    account = make(20_000)
    building = seconds(lambda: make(20_000))
    showing = seconds(lambda: [account.record(slot, full=False) for slot in range(0, 20_000, 2)])
    assert building < showing


@pytest.fixture(scope="module")
def large() -> Account:
    """Return the largest account, with many people updated."""
    account = make(LARGE)
    account.bulk_move(account.ids[:10_000], "Nurture")
    return account


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"next": encode_next(150_000), "includeTrash": "true", "includeUnclaimed": "true"},
        {"sort": "-updated"},
        {"sort": "-updated", "offset": "1900"},
        {"sort": "id", "idGreaterThan": "100000", "idLessThan": "110000", "includeTrash": "true", "includeUnclaimed": "true"},
        {"updatedAfter": "2026-03-02T08:00:00Z"},
        {"id": ",".join(map(str, range(5000, 5100)))},
    ],
)
def test_pages_of_a_large_account(large: Account, query: dict[str, str]) -> None:
    """A page of a hundred out of 200,000 is found in less time than rendering 1,500 people."""

    def ask() -> int:
        asked = {"limit": "100", **query}
        found = find_people(large, parse_filter(asked, large, Behaviour(), viewer=None), parse_paging(asked))
        return len([large.record(slot, full=False) for slot in found.slots])

    assert ask() >= 90
    assert seconds(ask) < seconds(lambda: [large.record(slot, full=False) for slot in range(1500)])
