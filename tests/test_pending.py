"""Items that wait are split by their people without losing one, and the room that they take is what they really take."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from fubd.core.observation import Delivery, Snapshot
from fubd.core.webhook import decode
from fubd.pending import Item, Part, split
from tests.recorder import at, read, webhook

_NOW = datetime(2026, 1, 5, tzinfo=UTC)


def _part(content: Delivery | Snapshot, loop: asyncio.AbstractEventLoop) -> Part:
    return Part(Item(content, _NOW, loop.create_future()), content)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_splitting_keeps_every_person_in_exactly_one_part(sizes: list[int]) -> None:
    """Down to single people, who are not split further; the item counts its parts."""
    loop = asyncio.new_event_loop()
    batch = [_part(webhook("e", "B", "10:00", tuple(range(size))), loop) for size in sizes]
    singles: list[Part] = []
    work = [batch]
    while work:
        parts = work.pop()
        halves = split(parts)
        if len(halves) == 1:
            singles += parts
        else:
            work += halves
    assert [len(part.people) for part in singles] == [1] * sum(sizes)
    for part, size in zip(batch, sizes, strict=True):
        assert sorted(single.people[0] for single in singles if single.item is part.item) == list(range(size))
        assert part.item.open_parts == size
    loop.close()


def test_what_is_taken_from_a_part_leaves_the_others_in_it() -> None:
    """A page of readings is split like a delivery."""
    loop = asyncio.new_event_loop()
    pages = [read("B", "10:00", "10:30", person=person) for person in range(5)]
    part = _part(Snapshot(tuple(page.readings[0] for page in pages), at("10:30"), None, pages[0].channel), loop)
    assert part.take(2).people == (0, 1)
    assert part.people == (2, 3, 4)
    assert part.take(3) is part
    assert part.item.open_parts == 2
    loop.close()


def test_an_item_takes_no_more_memory_than_is_counted() -> None:
    """The bound of the buffer is one of memory: the numbers of a large body weigh more than its bytes."""
    loop = asyncio.new_event_loop()
    event = {"eventId": "e", "eventCreated": _NOW.isoformat(), "event": "peopleStageUpdated", "data": {"stage": "B"}}
    bodies = [json.dumps({**event, "resourceIds": list(range(number, number + 60_000))}).encode() for number in range(10**6, 10**6 + 10)]
    bodies += [json.dumps({**event, "eventId": f"e{number}", "resourceIds": [number]}).encode() for number in range(2_000)]
    tracemalloc.start()
    parts = [_part(decode(bytes(bytearray(body)), fub_now=_NOW), loop) for body in bodies]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted = sum(part.item.size for part in parts)
    assert counted / 3 < taken < counted
    loop.close()
