"""200,000 people must cost little. The yardstick is the same machine doing something known, so no test depends on how fast it is."""

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
"""What a person may cost when 200,000 are to fit into 300 MB, the interpreter included."""


def make(people: int) -> Account:
    """Give an account on a stopped clock."""
    return Account(seed=7, people=people, clock=SimClock(NINE, speed=0.0))


def seconds(act: Callable[[], object]) -> float:
    """Give the best time of five, so that a busy machine does not count."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return min(times)


def test_memory() -> None:
    """Each person costs less than a tenth of the memory allowed."""
    make(10)
    tracemalloc.start()
    account = make(20_000)
    simulator = Simulator(account)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(simulator.account) == 20_000
    assert held / 20_000 < BYTES_PER_PERSON / 10


def test_start() -> None:
    """Making an account costs less than showing every second one of its people once."""
    account = make(20_000)
    building = seconds(lambda: make(20_000))
    showing = seconds(lambda: [account.record(slot, full=False) for slot in range(0, 20_000, 2)])
    assert building < showing


@pytest.fixture(scope="module")
def large() -> Account:
    """Give the largest account there is in these tests, with a fair number of people touched."""
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
    """A page of a hundred out of 200,000 is found in less time than some thousand people can be shown."""

    def ask() -> int:
        asked = {"limit": "100", **query}
        found = find_people(large, parse_filter(asked, large, Behaviour(), viewer=None), parse_paging(asked))
        return len([large.record(slot, full=False) for slot in found.slots])

    assert ask() >= 90
    assert seconds(ask) < seconds(lambda: [large.record(slot, full=False) for slot in range(1500)])
