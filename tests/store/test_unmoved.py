"""Changes of stage that do not move `updated`, as the database keeps them."""

from __future__ import annotations

from datetime import timedelta

from fubd.core.history import LAG
from fubd.core.observation import Channel
from tests.recorder import at, read, running_recorder, webhook


async def test_a_late_webhook_before_a_change_that_did_not_move_updated(database: str) -> None:
    """The later row's claim is dated long before the rows between; the chain holds all the same."""
    async with running_recorder(database) as recorder:
        await recorder.record(
            read("A", "03:00", "04:00"),
            webhook("e1", "C", "05:00"),
            read("C", "03:00", "05:01"),
            read("B", "03:00", "10:30"),
            webhook("e2", "D", "10:15"),
        )
        assert await recorder.rows() == [
            ("A", "C", at("05:00"), None),
            ("C", "D", at("10:15"), None),
            ("D", "B", at("10:30"), at("10:15")),
        ]


async def test_a_return_that_did_not_move_updated_is_recorded(database: str) -> None:
    """Each stay that a read showed is a row, between the last read of the stage before and its own first."""
    async with running_recorder(database) as recorder:
        await recorder.record(
            *(read("A", "03:00", "10:00"), read("B", "03:00", "10:30"), read("B", "03:00", "11:00"), read("A", "03:00", "11:30")),
            *(read("A", "03:00", "12:00"), read("B", "03:00", "12:30"), read("A", "03:00", "13:00"), read("A", "03:00", "13:30")),
        )
        assert [(*row[:3], row[3] and row[3] + LAG) for row in await recorder.rows()] == [
            ("A", "B", at("10:30"), at("10:00")),
            ("B", "A", at("11:30"), at("11:00")),
            ("A", "B", at("12:30"), at("12:00")),
            ("B", "A", at("13:00"), at("12:30")),
        ]


async def test_a_list_that_trails_is_no_return(database: str) -> None:
    """The stage before, read again soon after the new one, was read from a list or a replica that trails."""
    async with running_recorder(database) as recorder:
        await recorder.record(
            read("A", "03:00", "10:00"),
            webhook("e1", "B", "10:30"),
            read("B", "03:00", "10:30:02", channel=Channel.WEBHOOK),
            read("A", "03:00", "10:35"),
            read("B", "03:00", "10:40"),
        )
        assert await recorder.rows() == [("A", "B", at("10:30"), None)]
        await recorder.record(read("A", "03:00", "11:00"), read("A", "03:00", "11:30"), read("B", "03:00", "12:00"))
        assert [row[1:] for row in await recorder.rows()] == [
            ("B", at("10:30"), None),
            ("A", at("11:00"), at("10:40") - LAG),
            ("B", at("12:00"), at("11:30") - LAG),
        ]


async def test_what_follow_up_boss_shows_long_after_an_event_holds(database: str) -> None:
    """A return that no webhook reported and that did not move `updated` lies between the event and the first read that no list delays."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "03:00", "10:00"), webhook("e1", "B", "10:15"), read("A", "03:00", "10:20"))
        assert await recorder.rows() == [("A", "B", at("10:15"), None)]
        await recorder.record(read("A", "03:00", "11:00"), read("A", "03:00", "11:30"))
        returned = [("A", "B", at("10:15"), None), ("B", "A", at("11:00"), at("10:15"))]
        assert await recorder.rows() == returned
        await recorder.record(webhook("e3", "C", "12:00"), webhook("e2", "D", "11:50"))
        assert await recorder.rows() == [*returned, ("A", "D", at("11:50"), None), ("D", "C", at("12:00"), None)]


async def test_an_event_of_the_return_dates_it(database: str) -> None:
    """It comes after the read."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "03:00", "10:00"), webhook("e1", "B", "10:15"), read("A", "03:00", "11:00"))
        await recorder.record(webhook("e2", "A", "10:40"))
        assert await recorder.rows() == [("A", "B", at("10:15"), None), ("B", "A", at("10:40"), None)]


async def test_a_late_event_before_an_unreported_return(database: str) -> None:
    """The event trails its move by three seconds, so it is dated after the return to the stage before, which a read shows for good."""
    async with running_recorder(database) as recorder:
        await recorder.record(read("A", "03:00", "10:00"), webhook("e1", "B", "10:15:08"), read("A", "10:15:06", "10:20"))
        await recorder.record(read("A", "10:15:06", "11:00"))
        (first, second) = await recorder.rows()
        assert first == ("A", "B", at("10:15:08"), None)
        assert second[:2] == ("B", "A")
        assert second[2] - at("10:15:08") < timedelta(seconds=1)
        assert second[3] is not None
        assert second[3] < at("10:15:06")


async def test_a_row_made_by_a_read_dated_before_the_row_before_it_is_not_doubled(database: str) -> None:
    """Its own event trails beyond the one before, in the second of a third."""
    async with running_recorder(database) as recorder:
        await recorder.record(
            *(
                read("A", "08:00", "09:00"),
                read("B", "10:00:01", "10:00:02"),
                webhook("e1", "C", "10:00:02"),
                read("D", "10:00:03", "10:00:03"),
            ),
            *(webhook("e2", "B", "10:00:05"), webhook("e3", "D", "10:00:05"), read("A", "10:10", "10:11", "10:05")),
        )
        assert [row[:3] for row in await recorder.rows()] == [
            ("A", "C", at("10:00:02")),
            ("C", "B", at("10:00:05")),
            ("B", "D", at("10:00:05") + timedelta(microseconds=1)),
            ("D", "A", at("10:10")),
        ]
