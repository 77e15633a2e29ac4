"""Decoding the answers of the API, by sample files, by cases and by properties."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.core.api import (
    MAX_TAGS_IN_EVIDENCE,
    AccountIdentity,
    PeoplePage,
    parse_error,
    parse_identity,
    parse_page,
    parse_person,
    parse_stages,
    parse_subscription,
    parse_subscriptions,
)
from fubd.core.json_values import MAX_TEXT_CHARS
from fubd.core.observation import Reading
from fubd.errors import Malformed

SAMPLES = Path(__file__).parent.parent / "samples" / "page"
NOW = datetime(2025, 2, 3, 4, 6, tzinfo=UTC)
FIELDS = ("customCampaignID", "customBudget", "customAreas", "customMissing")


def sample(name: str) -> bytes:
    """Return the bytes of a sample."""
    return (SAMPLES / f"{name}.json").read_bytes()


def page_of(*people: object, metadata: object = None) -> bytes:
    """Return a page as FUB writes it."""
    document: dict[str, object] = {"people": list(people)}
    if metadata is not None:
        document["_metadata"] = metadata
    return json.dumps(document).encode()


def one(**changes: object) -> Reading:
    """Return the reading of one person, who is usable except for the changes."""
    person: dict[str, object] = {"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04Z"}
    (reading,) = parse_page(page_of(person | changes), read_at=NOW, fields=FIELDS).readings
    return reading


def test_a_documented_page_is_decoded() -> None:
    """It gives its people, ids, total and token; a person without a stage is unreadable."""
    page = parse_page(sample("people"), read_at=NOW, fields=FIELDS)
    assert page.ids == (40942, 40941, 40940)
    assert page.unreadable == (40940,)
    assert (page.total, page.next) == (3, "eyJzaW5jZUlkIjoxMDV9")
    ada, other = page.readings
    assert ada == Reading(
        person_id=40942,
        stage="ACQ - Offers Made",
        stage_id=14,
        created=datetime(2021, 4, 23, 2, 23, 11, tzinfo=UTC),
        updated=datetime(2025, 2, 3, 4, 5, 6, tzinfo=UTC),
        first_name="Ada",
        last_name="Núñez",
        assigned_user_id="7",
        assigned_user_name="Bo Agent",
        tags=("ReadyMode", "seller 🏠"),
        fields={"customCampaignID": "c-17", "customBudget": "125000", "customAreas": '["north", "east"]', "customMissing": None},
        payload={
            "id": 40942,
            "created": "2021-04-23T02:23:11Z",
            "updated": "2025-02-03T04:05:06Z",
            "name": "Ada Núñez",
            "firstName": "Ada",
            "lastName": "Núñez",
            "stage": "ACQ - Offers Made",
            "stageId": 14,
            "source": "<unspecified>",
            "assignedUserId": 7,
            "assignedTo": "Bo Agent",
            "tags": ["ReadyMode", "seller 🏠"],
            "customCampaignID": "c-17",
            "customBudget": "125000",
            "customAreas": '["north", "east"]',
        },
    )
    assert (other.person_id, other.stage_id, other.assigned_user_id) == (40941, 99, "8")
    assert (other.first_name, other.last_name) == (None, None)
    assert other.updated == datetime(2025, 2, 3, 4, 5, 5, tzinfo=UTC)


def test_an_unusual_page_is_decoded() -> None:
    """With another case of the key, a total as text, and a token only in nextLink, on another host."""
    page = parse_page(sample("sparse"), read_at=NOW, fields=())
    assert (page.ids, page.total, page.next) == ((5,), 4, "eyJzaW5jZUlkIjoxMjYzMn0=")


@pytest.mark.parametrize(
    ("metadata", "token"),
    [
        (None, None),
        ([], None),
        ({}, None),
        ({"next": None, "nextLink": None}, None),
        ({"next": ""}, None),
        ({"next": False}, None),
        ({"next": 105}, "105"),
        ({"next": None, "nextLink": "https://api.example.com/v1/people?limit=10"}, None),
        ({"nextLink": "https://api.example.com/v1/people?next=a+b/c==&limit=10#next=no"}, "a+b/c=="),
        ({"next": "t", "nextLink": "https://api.example.com/v1/people?next=other"}, "t"),
    ],
)
def test_the_token_of_the_next_page_is_found(metadata: object, token: str | None) -> None:
    """It is in `next` or in `nextLink`; without one the page is the last."""
    assert parse_page(page_of(metadata=metadata), read_at=NOW, fields=()).next == token


@pytest.mark.parametrize("token", [{"sinceId": 105}, ["t"], True, 1.5, "t" * 5000, "a\r\nb", "\ud800"])
def test_an_unusable_token_is_no_last_page(token: object) -> None:
    """The people of the page are read, and the page says that there is a next one."""
    page = parse_page(page_of(metadata={"next": token}), read_at=NOW, fields=())
    assert (page.next, page.next_is_unusable) == (None, True)


@pytest.mark.parametrize(
    ("total", "expected"),
    [(0, 0), ("0", 0), (3344, 3344), ("3344", 3344), (None, None), (-1, None), ("many", None), (True, None), (False, None), (1.5, None)],
)
def test_a_total_is_a_number_or_unknown(total: object, expected: int | None) -> None:
    """Also as text; anything else counts as no total."""
    assert parse_page(page_of(metadata={"total": total}), read_at=NOW, fields=()).total == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"people":{"a":1}}',
        b'{"people":7}',
        b'{"people":[null]}',
        b'{"people":[[]]}',
        b'{"people":[{"stage":"Lead","updated":"2025-02-03T04:05:04Z"}]}',
        b'{"people":[{"id":0}]}',
        b'{"people":[{"id":true}]}',
        b'{"people":[{"id":1.5}]}',
        b'{"people":[{"id":99999999999999999999}]}',
        b'{"people":[{"id":NaN}]}',
        b'{"people":[{"id":5,"stage":"Lead"',
        b"<!DOCTYPE html><html><body>Bad gateway</body></html>",
        b'{"people":[{"id":5,"stage":"\xff"}]}',
        b"[" * 100_000,
        b'{"people":' + b"[" * 100_000,
        b'{"total":' + b"9" * 5_000 + b',"people":[]}',
    ],
)
def test_anything_else_than_a_page_is_malformed(body: bytes) -> None:
    """HTML, truncated or deeply nested JSON, another shape, an element without an id."""
    with pytest.raises(Malformed):
        parse_page(body, read_at=NOW, fields=FIELDS)


def test_a_page_with_people_who_were_not_requested_is_malformed() -> None:
    """Fewer people than requested are accepted."""
    assert parse_page(sample("sparse"), read_at=NOW, fields=(), requested={5, 6}).ids == (5,)
    with pytest.raises(Malformed):
        parse_page(sample("sparse"), read_at=NOW, fields=(), requested={6})


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": None},
        {"stage": ""},
        {"stage": " "},
        {"stage": "\x00"},
        {"stage": 3},
        {"updated": None},
        {"updated": ""},
        {"updated": "yesterday"},
        {"updated": "2025-02-03"},
        {"updated": "0000-00-00T00:00:00Z"},
        {"updated": "9999-12-31T23:59:59Z"},
        {"updated": "0001-01-01T00:00:00+12:00"},
        {"updated": 1738555504},
    ],
)
def test_an_unreadable_person_affects_no_other_person(changes: dict[str, object]) -> None:
    """A person without a usable stage or `updated` is listed by id."""
    well = {"id": 5, "stage": "Lead", "updated": "2025-02-03T04:05:04Z"}
    page = parse_page(page_of(well, {"id": 6, "stage": "Lead", "updated": "2025-02-03T04:05:04Z"} | changes), read_at=NOW, fields=())
    assert (page.ids, page.unreadable) == ((5, 6), (6,))
    assert [reading.person_id for reading in page.readings] == [5]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-02-03T04:05:04Z", datetime(2025, 2, 3, 4, 5, 4, tzinfo=UTC)),
        ("2025-02-03T04:05:04+00:00", datetime(2025, 2, 3, 4, 5, 4, tzinfo=UTC)),
        ("2025-02-03T04:05:04.987Z", datetime(2025, 2, 3, 4, 5, 4, tzinfo=UTC)),
        ("2025-02-03T06:05:04+02:00", datetime(2025, 2, 3, 4, 5, 4, tzinfo=UTC)),
        ("2025-02-03T04:05:04", datetime(2025, 2, 3, 4, 5, 4, tzinfo=UTC)),
    ],
)
def test_instants_are_decoded_to_utc(value: str, expected: datetime) -> None:
    """In whole seconds, from any zone; without a zone they are UTC."""
    assert one(updated=value).updated == expected
    assert one(created=value).created == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("c-17", "c-17"),
        ("", ""),
        (None, None),
        (7, "7"),
        (7.5, "7.5"),
        (True, "true"),
        (["a", "é"], '["a", "é"]'),
        ({"a": 1}, '{"a": 1}'),
        ("x" * 3000, "x" * MAX_TEXT_CHARS),
        ("a\x00b\ud800c", "ab\ufffdc"),
    ],
)
def test_custom_fields_become_text(value: object, expected: str | None) -> None:
    """A string stays as it is, null stays null, anything else becomes its JSON."""
    reading = one(customCampaignID=value)
    assert reading.fields["customCampaignID"] == expected
    assert reading.payload["customCampaignID"] == expected


def test_strings_that_postgres_would_refuse_are_cleaned() -> None:
    """NUL is removed and a lone surrogate replaced, in every string of a reading."""
    reading = one(stage="Le\x00ad", firstName="A\ud800", lastName="\x00", assignedTo="B\udfff", tags=["t\x00", 5, "\udc00"], source="s\x00")
    assert (reading.stage, reading.first_name, reading.last_name) == ("Lead", "A\ufffd", None)
    assert (reading.assigned_user_name, reading.tags) == ("B\ufffd", ("t", "\ufffd"))
    assert reading.payload["source"] == "s"
    assert_storable(reading)


def test_the_evidence_is_bounded() -> None:
    """The payload has bounded strings and tags, and no key that was not requested."""
    reading = one(
        tags=[f"tag {number}" for number in range(500)], source="s" * 9000, background="private", stageId=10**30, name={"a": ["b"] * 900}
    )
    assert len(reading.tags) == 500
    assert reading.payload["tags"] == [f"tag {number}" for number in range(MAX_TAGS_IN_EVIDENCE)]
    assert reading.payload["source"] == "s" * MAX_TEXT_CHARS
    assert "background" not in reading.payload
    assert reading.stage_id is None
    assert reading.payload["stageId"] == str(10**30)
    assert len(str(reading.payload["name"])) == MAX_TEXT_CHARS


def test_optional_values_of_another_type_count_as_missing() -> None:
    """A person is still readable with any of them."""
    reading = one(firstName=5, lastName=[], tags="a,b", stageId="x", assignedUserId="none", assignedTo={}, created=False)
    assert (reading.first_name, reading.last_name, reading.tags, reading.stage_id) == (None, None, (), None)
    assert (reading.assigned_user_id, reading.assigned_user_name, reading.created) == (None, None, None)


def test_a_single_person_is_decoded() -> None:
    """The answer is the bare person; a list in its place, another person or an unusable one is Malformed."""
    bare = b'{"id":"5","stage":"Lead","updated":"2025-02-03T04:05:04Z"}'
    assert parse_person(bare, fields=(), read_at=NOW, requested=5).person_id == 5
    assert parse_person(bare, fields=(), read_at=NOW).stage == "Lead"
    for body, asked in ((sample("people"), 40942), (bare, 6), (b'{"id":5,"stage":"Lead"}', 5), (b"[]", 5), (b"{}", 5)):
        with pytest.raises(Malformed):
            parse_person(body, fields=(), read_at=NOW, requested=asked)


def test_stages_are_decoded() -> None:
    """As pairs of name and id; a stage without a name is left out but counted."""
    body = b'{"_metadata":{"total":"3"},"Stages":[{"id":1,"name":"Lead"},{"id":"2","name":"Trash"},{"id":3,"name":null}]}'
    stages = parse_stages(body)
    assert (stages.items, stages.count, stages.total, stages.next) == ((("Lead", 1), ("Trash", 2)), 3, 3, None)
    body = b'{"stages":[{"id":1,"name":"Last"},{"id":2,"name":"Second","orderWeight":20},{"id":3,"name":"First","orderWeight":"10"}]}'
    assert [name for name, _ in parse_stages(body).items] == ["First", "Second", "Last"]
    with pytest.raises(Malformed):
        parse_stages(b'{"people":[]}')


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"user":{"id":1},"account":{"id":3,"domain":"acme","owner":{}}}', AccountIdentity(3, "acme", "acme")),
        (b'{"account":{"id":"3","name":"Acme","domain":"acme"}}', AccountIdentity(3, "Acme", "acme")),
        (b'{"account":{"id":3}}', AccountIdentity(3, None)),
        (b'{"account":{"id":0,"domain":"acme"}}', None),
        (b'{"account":[3],"id":3}', None),
        (b'{"errorMessage":"no"}', None),
        (b"{}", None),
    ],
)
def test_the_identity_is_nested_and_may_be_unknown(body: bytes, expected: AccountIdentity | None) -> None:
    """Its shape is observed, not documented: without a usable id of the account it is unknown."""
    assert parse_identity(body) == expected


@pytest.mark.parametrize("body", [b"[]", b"<html>"])
def test_an_identity_that_is_no_object_is_malformed(body: bytes) -> None:
    """A gateway's page, for example."""
    with pytest.raises(Malformed):
        parse_identity(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"errorMessage":"Only the account owner may access webhooks."}', "Only the account owner may access webhooks."),
        (b'{"errorMessage":"two\\r\\nlines\\u0000 \\u001b[31m"}', "two lines [31m"),
        (b'{"errorMessage":"' + b"x" * 900 + b'"}', "x" * 200),
        (b'{"errorMessage":7}', ""),
        (b"{}", ""),
        (b"<html>", None),
        (b"", None),
        (b"[]", None),
    ],
)
def test_the_error_message_of_a_refusal_is_one_clean_line(body: bytes, expected: str | None) -> None:
    """It is bounded; an answer that is not FUB's error document has none."""
    assert parse_error(body) == expected


# --- Properties ----------------------------------------------------------------------------------------------------


def assert_storable(reading: Reading) -> None:
    """Check what Postgres requires of text and jsonb: valid UTF-8, no NUL, no NaN or infinity, ids within bigint."""
    written = json.dumps(
        [
            reading.stage,
            reading.first_name,
            reading.last_name,
            reading.assigned_user_id,
            reading.assigned_user_name,
            reading.tags,
            dict(reading.fields),
            dict(reading.payload),
        ],
        allow_nan=False,
        ensure_ascii=False,
    )
    # The escape of NUL has one backslash; a backslash of the text itself is written as two.
    assert "\\u0000" not in written.replace("\\\\", "")
    assert written.encode()
    assert 0 < reading.person_id < 2**63
    assert reading.updated.tzinfo is UTC
    assert reading.updated.microsecond == 0
    assert reading.stage.strip()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
INSTANTS = st.datetimes().map(lambda instant: f"{instant.isoformat()}Z") | st.just("2025-02-03T04:05:04Z")
PERSON = st.fixed_dictionaries(
    {"id": st.integers(1, 2**63 - 1) | JSON},
    optional={
        "stage": st.text(st.characters(), max_size=8) | JSON,
        "updated": INSTANTS | JSON,
        **dict.fromkeys(("created", "firstName", "lastName", "stageId", "assignedTo", "assignedUserId", "tags", "name"), JSON),
        "customCampaignID": JSON,
    },
)
NEARLY_A_PAGE = st.fixed_dictionaries(
    {"people": st.lists(PERSON, max_size=2)},
    optional={"_metadata": st.fixed_dictionaries({}, optional={"total": JSON, "next": JSON, "nextLink": JSON})},
)
PARSERS: tuple[Callable[[bytes], object], ...] = (
    lambda body: parse_page(body, read_at=NOW, fields=FIELDS),
    lambda body: parse_person(body, fields=FIELDS, read_at=NOW),
    parse_stages,
    parse_subscriptions,
    parse_subscription,
    parse_identity,
    parse_error,
)


def parse_or_refuse(body: bytes) -> None:
    """Hand the bytes to every parser: only Malformed may come out of it, or something storable."""
    for parser in PARSERS:
        try:
            found = parser(body)
        except Malformed:
            continue
        if isinstance(found, PeoplePage):
            assert len(found.ids) == len(found.readings) + len(found.unreadable)
            for reading in found.readings:
                assert_storable(reading)
        elif isinstance(found, Reading):
            assert_storable(found)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Any bytes parse or raise Malformed, nothing else."""
    parse_or_refuse(body)


@given(NEARLY_A_PAGE | PERSON | JSON)
def test_anything_like_a_page(document: object) -> None:
    """Anything like a page parses into what can be stored, or raises Malformed, nothing else."""
    parse_or_refuse(json.dumps(document).encode())


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_page(position: int, byte: int) -> None:
    """A page with one byte changed, or cut short, parses or raises Malformed, nothing else."""
    body = sample("people")
    parse_or_refuse(body[:position])
    parse_or_refuse(body[:position] + bytes([byte]) + body[position + 1 :])
