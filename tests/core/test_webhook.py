"""Verifying and decoding webhook requests, by sample files and by properties."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fubd.core.observation import Delivery, IgnoredEvent, RefetchEvent, StageEvent
from fubd.core.webhook import decode, verify
from fubd.errors import InvalidSignature

SAMPLES = Path(__file__).parent.parent / "samples" / "event"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AT = datetime(2019, 7, 1, 17, 12, 32, tzinfo=UTC)
SERIES = "0b5a2c1e-0001-4d8b-869a-00000000000"
VECTORS = [(each["key"].encode(), each["body"], each["signature"]) for each in json.loads((SAMPLES / "signatures.json").read_text())]


def sign(body: bytes, key: bytes) -> str:
    """Sign a body as FUB's guide says."""
    return hmac.new(key, base64.b64encode(body), "sha256").hexdigest()


def event(**changed: object) -> bytes:
    """Return a stage event with some of its keys changed; ... leaves a key out."""
    document: dict[str, object] = {
        "eventId": "e-1",
        "eventCreated": "2019-07-01T17:12:32+00:00",
        "event": "peopleStageUpdated",
        "resourceIds": [42],
        "uri": None,
        "data": {"stage": "Lead"},
    }
    document |= changed
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def read(body: bytes) -> Delivery:
    """Decode a body at an invented instant."""
    return decode(body, fub_now=NOW)


# --- The signature ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "body", "signature"), VECTORS)
def test_the_known_vectors_verify(key: bytes, body: str, signature: str) -> None:
    """Each test vector is genuine under its key, as the first or the last of two, and under no other."""
    content = (SAMPLES / body).read_bytes()
    verify(content, signature, [key])
    verify(content, signature, [b"older", key])
    verify(content, signature, [key, b"older"])
    with pytest.raises(InvalidSignature):
        verify(content, signature, [b"older"])


@pytest.mark.parametrize(
    "damage",
    [
        str.upper,
        lambda signature: f"sha256={signature}",
        lambda signature: f" {signature}",
        lambda signature: signature[:-1],
        lambda signature: signature + "0",
        lambda signature: signature.replace("8", "\uff18"),
        lambda _: "",
        lambda _: "ключ",
        lambda _: "\udcff\ud800",
    ],
)
def test_only_the_exact_lowercase_hex_is_a_signature(damage: type[str]) -> None:
    """A signature that differs in case, length, prefix or alphabet is invalid, also one beyond ASCII."""
    with pytest.raises(InvalidSignature):
        verify(b"abc", damage(VECTORS[0][2]), [b"k"])


def test_without_a_header_or_without_a_key_nothing_is_genuine() -> None:
    """A missing header and an empty list of keys are invalid."""
    with pytest.raises(InvalidSignature):
        verify(b"abc", None, [b"k"])
    with pytest.raises(InvalidSignature):
        verify(b"abc", VECTORS[0][2], [])


@given(st.binary(), st.one_of(st.none(), st.text(st.characters())), st.lists(st.binary(), max_size=3))
def test_any_request_is_valid_or_has_an_invalid_signature(body: bytes, signature: str | None, keys: list[bytes]) -> None:
    """Verify returns or raises InvalidSignature for any input; it returns for what was signed."""
    try:
        verify(body, signature, keys)
    except InvalidSignature:
        assert all(sign(body, key) != signature for key in keys)
    for key in keys:
        verify(body, sign(body, key), keys)


# --- The samples ------------------------------------------------------------------------------------------------------

CONTENTS: dict[str, StageEvent | RefetchEvent | IgnoredEvent] = {
    "stage-updated.json": StageEvent("e0ac086a-879a-4d8b-869a-fe53151e34f4", AT, "Free Trial", (40942,)),
    "stage-updated-plain-slashes.json": StageEvent("e0ac086a-879a-4d8b-869a-fe53151e34f4", AT, "Free Trial", (40942,)),
    "created.json": RefetchEvent(f"{SERIES}1", "peopleCreated", datetime(2016, 12, 12, 15, 19, 21, tzinfo=UTC), (1234, 3244, 3232)),
    "updated.json": RefetchEvent(f"{SERIES}2", "peopleUpdated", AT, (77,)),
    "deleted.json": RefetchEvent(f"{SERIES}3", "peopleDeleted", AT, (77, 78)),
    "tags-created.json": RefetchEvent(f"{SERIES}4", "peopleTagsCreated", AT, (77,)),
    "merged.json": RefetchEvent(f"{SERIES}5", "peopleMerged", AT, (77, 78)),
    "relationship-created.json": IgnoredEvent(f"{SERIES}6", "peopleRelationshipCreated", AT),
    "note-created.json": IgnoredEvent(f"{SERIES}7", "notesCreated", AT),
    "stage-definition-updated.json": IgnoredEvent(f"{SERIES}8", "stageUpdated", AT),
    "bulk-stage-updated.json": StageEvent(f"{SERIES}9", AT, "Négociation → Offer", (42, 7, 1000000000000)),
    "mixed-ids.json": StageEvent(f"{SERIES}a", AT, "Lead", (42, 7)),
}


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_each_sample_is_decoded(name: str) -> None:
    """A sample decodes to its content in the table; only the one with mixed ids is quarantined as well."""
    body = (SAMPLES / name).read_bytes()
    delivery = read(body)
    content = CONTENTS[name]
    assert delivery.content == content
    assert delivery.body == body
    assert delivery.event_id == content.event_id
    assert delivery.event == ("peopleStageUpdated" if isinstance(content, StageEvent) else content.event)
    assert delivery.quarantine == ("3 of 5 ids in resourceIds are unusable" if name == "mixed-ids.json" else None)


def test_every_sample_is_in_a_table() -> None:
    """No sample file is left out."""
    assert {path.name for path in SAMPLES.iterdir()} == {*CONTENTS, "abc.bin", "signatures.json"}


# --- What is quarantined, and why -------------------------------------------------------------------------------------

UNREADABLE = [
    (b"", "not JSON"),
    (b"abc", "not JSON"),
    (b"{", "not JSON"),
    (b'{"a":1}x', "not JSON"),
    (b"[1]", "not an object"),
    (b"null", "not an object"),
    (b'"peopleCreated"', "not an object"),
    (b"\xff\xfe{}", "not UTF-8"),
    (b'{"event":"\xc3"}', "not UTF-8"),
    (b"\xef\xbb\xbf{}", "not JSON"),
    (event().decode().encode("utf-16"), "not UTF-8"),
    (event().decode().encode("utf-16-le"), "not JSON"),
    (event().decode().encode("utf-32-be"), "not JSON"),
    (b'{"a":NaN}', "NaN"),
    (b'{"a":-Infinity}', "NaN"),
    (b'{"event":"notesCreated","event":"peopleCreated"}', "occurs twice"),
    (b'{"event":"notesCreated","data":{"stage":"A","stage":"B"}}', "occurs twice"),
    (b"[" * 200_000, "nested too deeply"),
    (b'{"a":' * 200_000, "nested too deeply"),
    (b'{"event":"notesCreated","a":' + b"9" * 10_000 + b"}", "not JSON"),
]


@pytest.mark.parametrize(("body", "reason"), UNREADABLE)
def test_a_body_that_is_no_json_object_is_quarantined(body: bytes, reason: str) -> None:
    """It has no content, a reason, and a key made of its bytes."""
    delivery = read(body)
    assert (delivery.content, delivery.event, delivery.event_id, delivery.body) == (None, None, None, body)
    assert reason in (delivery.quarantine or "")
    assert delivery.key == read(bytes(bytearray(body))).key
    assert delivery.key != read(body + b" ").key


BAD_IDS: list[object] = [
    0,
    -1,
    True,
    False,
    1.0,
    1e3,
    None,
    "",
    "x",
    "-1",
    "+1",
    " 1",
    "1.0",
    "1e3",
    "٣",
    "²",
    "0",
    [1],
    {},
    2**63,
    "9" * 5000,
]
BAD_STAGES: list[object] = [None, 7, ["Lead"], "", "  \t", "A\0B", "A\ud800", "x" * 501]
UNUSABLE: list[tuple[dict[str, object], str]] = [
    ({"event": ...}, "event name"),
    ({"event": ""}, "event name"),
    ({"event": " "}, "event name"),
    ({"event": 7}, "event name"),
    ({"event": None}, "event name"),
    ({"event": "people\0"}, "event name"),
    ({"event": "people\ud800"}, "event name"),
    ({"event": "p" * 201}, "event name"),
    ({"resourceIds": ...}, "usable id"),
    ({"resourceIds": []}, "usable id"),
    ({"resourceIds": 42}, "usable id"),
    ({"resourceIds": {"id": 42}}, "usable id"),
    *((dict[str, object](resourceIds=[bad]), "usable id") for bad in BAD_IDS),
    ({"resourceIds": [str(2**63)]}, "usable id"),
    ({"eventCreated": ...}, "eventCreated is missing"),
    ({"eventCreated": None}, "eventCreated is missing"),
    ({"eventCreated": 1561996352}, "eventCreated is missing"),
    ({"eventCreated": ""}, "unreadable"),
    ({"eventCreated": "yesterday"}, "unreadable"),
    ({"eventCreated": "2019-02-30T00:00:00+00:00"}, "unreadable"),
    ({"eventCreated": "0000-01-01T00:00:00+00:00"}, "unreadable"),
    ({"eventCreated": "10000-01-01T00:00:00+00:00"}, "unreadable"),
    ({"eventCreated": "\ud800"}, "unreadable"),
    ({"eventCreated": "2019-06-30T24:00:01Z"}, "unreadable"),
    ({"eventCreated": "2019-06-30T24:60:60Z"}, "unreadable"),
    ({"eventCreated": "9999-12-31T24:00:00Z"}, "unreadable"),
    ({"eventCreated": "2019-07-01"}, "no time zone"),
    ({"eventCreated": "2019-07-01T17:12:32"}, "no time zone"),
    ({"eventCreated": "0001-01-01T00:00:00+23:59"}, "unreadable"),
    ({"eventCreated": "9999-12-31T23:59:59-23:59"}, "unreadable"),
    ({"eventCreated": "0001-01-01T00:00:00Z"}, "out of range"),
    ({"eventCreated": "1969-12-31T23:59:59Z"}, "out of range"),
    ({"eventCreated": "9999-12-31T23:59:59Z"}, "a day ahead"),
    ({"eventCreated": (NOW + timedelta(days=1, seconds=1)).isoformat()}, "a day ahead"),
    ({"data": ...}, "usable stage"),
    ({"data": None}, "usable stage"),
    ({"data": []}, "usable stage"),
    ({"data": "Lead"}, "usable stage"),
    *((dict[str, object](data={"stage": bad}), "usable stage") for bad in BAD_STAGES),
]


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2019-07-01t17:12:32z", datetime(2019, 7, 1, 17, 12, 32, tzinfo=UTC)),
        ("2019-07-01T17:12:32+0530", datetime(2019, 7, 1, 11, 42, 32, tzinfo=UTC)),
        ("2019-06-30T24:00:00Z", datetime(2019, 7, 1, tzinfo=UTC)),
        ("2019-06-30T24:00+02:00", datetime(2019, 6, 30, 22, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T18:59:60.5-05:00", datetime(2017, 1, 1, microsecond=500_000, tzinfo=UTC)),
    ],
)
def test_each_form_of_an_instant_is_read(written: str, instant: datetime) -> None:
    """ISO 8601 also has small letters (RFC 3339), the hour 24 and leap seconds."""
    content = read(event(eventCreated=written)).content
    assert content is not None
    assert content.at == instant


@pytest.mark.parametrize(("changed", "reason"), UNUSABLE)
def test_an_event_without_a_required_part_is_quarantined_whole(changed: dict[str, object], reason: str) -> None:
    """Without a name, an instant, an id or a stage it has no content; the parts that are known are kept."""
    delivery = read(event(**changed))
    assert delivery.content is None
    assert reason in (delivery.quarantine or "")
    assert delivery.event_id == "e-1"
    assert delivery.event == (None if "event" in changed else "peopleStageUpdated")


@pytest.mark.parametrize(
    "changed",
    [each for each, _ in UNUSABLE if "resourceIds" in each or "eventCreated" in each],
)
def test_an_event_without_a_stage_needs_an_instant_and_an_id_too(changed: dict[str, object]) -> None:
    """Without one of them it is quarantined whole as well."""
    delivery = read(event(event="peopleUpdated", **changed))
    assert (delivery.content, delivery.quarantine is None) == (None, False)


@pytest.mark.parametrize("changed", [each for each, _ in UNUSABLE if "event" not in each])
@pytest.mark.parametrize("name", ["notesCreated", "stageUpdated", "peopleRelationshipDeleted", "somethingNew"])
def test_an_event_that_we_do_not_use_needs_only_its_name(name: str, changed: dict[str, object]) -> None:
    """It is ignored and not quarantined, however odd the rest is."""
    delivery = read(event(event=name, **changed))
    assert isinstance(delivery.content, IgnoredEvent)
    assert delivery.content.event == name
    assert delivery.quarantine is None


def test_ids_in_an_object_with_numeric_keys_are_a_list() -> None:
    """PHP writes a list with gaps so; the delivery is the same as with the list."""
    as_object, as_list = read(event(resourceIds={"0": 42, "2": 7})), read(event(resourceIds=[42, 7]))
    assert as_object.content == as_list.content
    assert as_object.key == as_list.key
    assert as_object.quarantine is None


def test_usable_ids_count_next_to_unusable_ones() -> None:
    """The usable ids are kept, each once and in order; the reason counts the others."""
    delivery = read(event(resourceIds=["42", 7, 0, "7", None, 42, 9]))
    assert delivery.content == StageEvent("e-1", AT, "Lead", (42, 7, 9))
    assert delivery.quarantine == "2 of 5 ids in resourceIds are unusable"


def test_the_person_of_trial_writes_cannot_be_named() -> None:
    """`check` writes for the highest id that a bigint holds, and takes it back: rows of that person would look like a broken table."""
    delivery = read(event(resourceIds=[2**63 - 2, 2**63 - 1, 2**63]))
    assert delivery.content == StageEvent("e-1", AT, "Lead", (2**63 - 2,))


@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(0), timedelta(days=-9)])
def test_an_instant_up_to_a_day_ahead_is_used(ahead: timedelta) -> None:
    """FUB's two clocks may differ, so an instant is refused only when it is more than a day ahead."""
    delivery = read(event(eventCreated=(NOW + ahead).isoformat()))
    assert isinstance(delivery.content, StageEvent)
    assert delivery.content.at == NOW + ahead


@pytest.mark.parametrize("written", ["2019-07-01T17:12:32Z", "2019-07-01T19:12:32+02:00", "2019-07-01T17:12:32.000+00:00"])
def test_an_instant_is_the_same_in_every_notation(written: str) -> None:
    """Zone and precision make no other event, and the decoded instant is in UTC."""
    delivery = read(event(eventCreated=written))
    assert isinstance(delivery.content, StageEvent)
    assert (delivery.content.at, delivery.content.at.tzinfo) == (AT, UTC)
    assert delivery.key == read(event()).key


@pytest.mark.parametrize("odd", [..., None, "", 7, "e\0", "e\ud800", "e" * 201])
@pytest.mark.parametrize("name", ["peopleStageUpdated", "peopleUpdated", "notesCreated"])
def test_an_event_without_a_usable_id_gets_a_stable_one(name: str, odd: object) -> None:
    """Its id is derived from its content: the same for a redelivery, another for other content."""
    delivery = read(event(event=name, eventId=odd))
    assert delivery.quarantine is None
    assert delivery.content is not None
    assert delivery.event_id == delivery.content.event_id == read(event(event=name, eventId=odd)).event_id
    assert (delivery.event_id or "").startswith("content-")
    assert delivery.event_id != read(event(event=name, eventId=odd, resourceIds=[43])).event_id


def test_an_event_id_may_be_any_text_of_200_characters() -> None:
    """FUB's ids are UUIDs, but that is not documented."""
    assert read(event(eventId="é" * 200)).event_id == "é" * 200


# --- The key ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"eventId": "e-2"},
        {"event": "peopleUpdated"},
        {"eventCreated": "2019-07-01T17:12:33+00:00"},
        {"data": {"stage": "Leads"}},
        {"resourceIds": [43]},
        {"resourceIds": [42, 43]},
    ],
)
def test_another_meaning_is_another_key(changed: dict[str, object]) -> None:
    """Event id, name, instant, stage and people each make another delivery: a bulk edit may be split under one event id."""
    assert read(event(**changed)).key != read(event()).key


def test_another_spelling_of_a_stage_is_the_same_meaning() -> None:
    """Blanks around a stage and HTML entities in it are not part of its name."""
    assert read(event(data={"stage": " Lead "})).key == read(event(data={"stage": "Le&#97;d"})).key == read(event()).key


def test_the_same_meaning_is_the_same_key() -> None:
    """Spacing, escapes, unknown keys, and the order and repetition of ids make no other delivery."""
    first = read(event(resourceIds=[42, 7]))
    again = read(b" " + event(resourceIds=["7", 42, 7], added={"by": "FUB"}))
    assert len(first.key) == 32
    assert first.key == again.key


def test_mixed_ids_are_keyed_by_their_bytes() -> None:
    """Unusable ids have no meaning that could be compared, so two deliveries are the same only byte by byte."""
    first = read(event(resourceIds=[42, "x"]))
    assert first.key == read(event(resourceIds=[42, "x"])).key
    assert first.key not in {read(event(resourceIds=[42, "y"])).key, read(event(resourceIds=[42])).key}


def test_an_ignored_event_has_the_same_key_at_any_time() -> None:
    """Without an instant of its own it gets FUB's present time, which must not make its redelivery another delivery."""
    body = event(event="notesCreated", eventCreated=...)
    assert decode(body, fub_now=NOW).key == decode(body, fub_now=NOW + timedelta(hours=1)).key


def test_ten_thousand_people_are_one_event() -> None:
    """A bulk edit keeps all its people."""
    content = read(event(resourceIds=list(range(1, 10_001)))).content
    assert isinstance(content, StageEvent)
    assert content.person_ids == tuple(range(1, 10_001))


# --- The law ----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from(["42", "2019-07-01T17:12:32Z"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "eventId": JSON,
        "event": JSON | st.sampled_from(["peopleStageUpdated", "peopleCreated", "notesCreated"]),
        "eventCreated": JSON | st.datetimes(timezones=st.timezones() | st.none()).map(datetime.isoformat),
        "resourceIds": JSON | st.lists(JSON),
        "data": JSON | st.fixed_dictionaries({"stage": JSON}),
    },
).map(lambda document: json.dumps(document).encode())
MOMENTS = st.datetimes(timezones=st.just(UTC))


@given(st.binary() | DOCUMENTS, MOMENTS)
@example(b"", datetime.max.replace(tzinfo=UTC))
@example(event(), datetime.min.replace(tzinfo=UTC))
def test_any_bytes_decode(body: bytes, now: datetime) -> None:
    """Any body has content or is quarantined (or both), its texts can be stored, and its redelivery is the same delivery."""
    delivery = decode(body, fub_now=now)
    assert delivery.body == body
    assert len(delivery.key) == 32
    assert delivery.content is not None or delivery.quarantine
    for text in (delivery.event_id, delivery.event, delivery.quarantine, getattr(delivery.content, "stage", None)):
        assert text is None or (text.strip() and "\0" not in text and text.encode())
    if delivery.content is not None:
        assert delivery.content.event_id == delivery.event_id
        assert delivery.content.at.tzinfo is UTC
    assert decode(body, fub_now=now) == delivery
