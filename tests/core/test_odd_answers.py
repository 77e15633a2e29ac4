"""Answers that are odd in one place: nobody else on the page is affected, and nothing is taken for what it is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from fubd.core.api import is_not_found, parse_page, parse_subscriptions
from fubd.errors import Malformed

NOW = datetime(2025, 2, 3, 4, 5, 6, tzinfo=UTC)


def page_of(*people: object) -> bytes:
    """Return a page of these people."""
    return json.dumps({"people": people}).encode()


def test_a_page_says_that_its_times_had_no_zone() -> None:
    """So that it can be reported once."""
    person = {"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04"}
    assert parse_page(page_of(person), read_at=NOW, fields=()).has_zoneless_times
    assert not parse_page(page_of(person | {"updated": "2025-02-03T04:05:04Z"}), read_at=NOW, fields=()).has_zoneless_times


@pytest.mark.parametrize(
    "odd", [None, [], 7, {}, {"id": 0, "stage": "Lead"}, {"id": True}, {"id": 1.5}, {"id": 2**63 - 1}, {"id": 99999999999999999999}]
)
def test_an_element_without_a_usable_id_affects_no_other(odd: object) -> None:
    """It is counted as a row of the page."""
    well = {"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04Z"}
    page = parse_page(json.dumps({"people": [odd, well]}).encode(), read_at=NOW, fields=())
    assert (page.ids, page.unidentified, page.rows) == ((5,), 1, 2)


@pytest.mark.parametrize(("people", "ids"), [(None, ()), ([], ()), ({}, ())])
def test_an_empty_list_has_several_forms(people: object, ids: tuple[int, ...]) -> None:
    """PHP writes null or an empty object as well."""
    assert parse_page(json.dumps({"people": people}).encode(), read_at=NOW, fields=()).ids == ids


def test_an_object_with_numeric_keys_is_a_list() -> None:
    """PHP writes a list with gaps so, of people and of tags."""
    person = {"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04Z", "tags": {"0": "a", "2": "b"}}
    page = parse_page(json.dumps({"people": {"1": person, "7": person | {"id": 6}}}).encode(), read_at=NOW, fields=())
    assert page.ids == (5, 6)
    assert page.readings[0].tags == ("a", "b")


def test_an_error_under_status_200_is_shown() -> None:
    """In FUB's own words."""
    with pytest.raises(Malformed, match="Follow Up Boss says: Your subscription has expired"):
        parse_page(b'{"errorMessage":"Your subscription has\\n expired"}', read_at=NOW, fields=())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"errorMessage":"Requested resource was not found."}', True),
        (b'{"errorMessage":"no route"}', False),
        (b'{"message":"Not Found"}', False),
        (b"<html>", False),
    ],
)
def test_a_404_counts_only_in_fubs_words(body: bytes, expected: bool) -> None:
    """A gateway's says nothing about a person."""
    assert is_not_found(body) is expected


def test_a_person_who_was_not_requested_affects_no_other() -> None:
    """FUB was seen to answer with others; those who were requested count."""
    person = {"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04Z"}
    page = parse_page(page_of(person | {"id": 6}, person, None), read_at=NOW, fields=(), requested={5, 7})
    assert (page.ids, [reading.person_id for reading in page.readings], page.unidentified) == ((5,), [5], 1)
    with pytest.raises(Malformed, match="only people who were not requested"):
        parse_page(page_of(person | {"id": 6}), read_at=NOW, fields=(), requested={5})


@pytest.mark.parametrize(
    ("written", "person_id"),
    [("5.0", 5), ("5e0", 5), ('"5"', 5), ("9007199254740992.0", 2**53), ("9007199254740994.0", None), ("5.5", None), ("1e999", None)],
)
def test_an_id_may_be_written_with_a_fraction_of_zero(written: str, person_id: int | None) -> None:
    """JSON has one kind of number; what stands for several integers is none."""
    body = b'{"people":[{"id":%b,"stage":"Lead","updated":"2025-02-03T04:05:04Z"},{"id":1,"stage":"Lead"}]}' % written.encode()
    assert parse_page(body, read_at=NOW, fields=()).ids == ((person_id, 1) if person_id else (1,))


@pytest.mark.parametrize("metadata", ["total 1", 7, [1], True])
def test_metadata_that_cannot_be_used_affects_no_person(metadata: object) -> None:
    """The people of the page count; whether there are more is not known."""
    body = {"_metadata": metadata, "people": [{"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04Z"}]}
    page = parse_page(json.dumps(body).encode(), read_at=NOW, fields=())
    assert (page.ids, page.total, page.next, page.next_is_unusable) == ((5,), None, None, True)
    empty = parse_page(json.dumps(body | {"people": []}).encode(), read_at=NOW, fields=())
    assert (empty.ids, empty.total, empty.next_is_unusable, empty.may_continue) == ((), None, True, True)
    hooks = parse_subscriptions(json.dumps(body | {"webhooks": []}).encode())
    assert (hooks.count, hooks.total, hooks.next, hooks.next_is_unusable) == (0, None, None, True)


@pytest.mark.parametrize(
    ("updated", "taken_as"),
    [("2025-02-04T04:05:06Z", NOW + timedelta(days=1)), ("2025-02-04T04:05:07Z", NOW), ("2099-01-01T00:00:00Z", NOW)],
)
def test_an_instant_that_cannot_have_come_counts_as_the_moment_of_reading(updated: str, taken_as: datetime) -> None:
    """A row of that instant would stand after all that follow. A day is allowed for clocks; while FUB's is unknown, nothing is in doubt."""
    person = page_of({"id": 5, "stage": "Lead", "updated": updated, "created": updated})
    page = parse_page(person, read_at=NOW, now=NOW, fields=())
    (reading,) = page.readings
    assert (reading.updated, reading.created) == (taken_as, None if taken_as == NOW else taken_as)
    assert page.has_future_times == (taken_as == NOW)
    assert not parse_page(person, read_at=NOW, fields=()).has_future_times


@pytest.mark.parametrize(
    ("created", "taken_as"),
    [
        ("2025-02-03T04:05:00Z", datetime(2025, 2, 3, 4, 5, tzinfo=UTC)),
        ("2025-02-03T04:05:09Z", datetime(2025, 2, 3, 4, 5, 4, tzinfo=UTC)),
        ("2025-02-03T04:35:04Z", None),
        ("2099-01-01T00:00:00Z", None),
    ],
)
def test_nobody_was_created_after_their_last_change(created: str, taken_as: datetime | None) -> None:
    """Seconds may lie between two of FUB's clocks; more says that the time of creation is not one."""
    page = parse_page(page_of({"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04Z", "created": created}), read_at=NOW, fields=())
    assert [reading.created for reading in page.readings] == [taken_as]


def test_the_epoch_stands_for_no_date() -> None:
    """It is a zero that was written as an instant."""
    page = parse_page(page_of({"id": 5, "stage": "Lead", "updated": "1970-01-01T00:00:00Z"}), read_at=NOW, fields=())
    assert page.unreadable == (5,)


def test_a_person_who_is_on_a_page_twice_counts_once() -> None:
    """The first time, or the time that is usable; the page has as many rows as before."""
    person = {"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04Z"}
    odd, other = person | {"stage": None}, person | {"stage": "Offer"}
    page = parse_page(page_of(person, odd, other, person | {"id": 6}), read_at=NOW, fields=())
    assert (page.ids, page.rows, page.people, page.repeated, page.unreadable) == ((5, 6), 4, 2, 2, ())
    assert [reading.stage for reading in page.readings] == ["Lead", "Lead"]
    assert [reading.stage for reading in parse_page(page_of(odd, other), read_at=NOW, fields=()).readings] == ["Offer"]
