"""Decoding the webhooks that Follow Up Boss lists."""

from __future__ import annotations

import pytest

from fubd.core.api import parse_subscription, parse_subscriptions
from fubd.core.subscriptions import Subscription, UnusableSubscription
from fubd.errors import Malformed


def test_subscriptions_are_decoded() -> None:
    """In a list or alone; an element that cannot be used stands among the others with what it lacks, and alone it is Malformed."""
    hook = b'{"id":1,"status":"Active","event":"peopleCreated","url":"https://hooks.example.com/webhook/fub"}'
    expected = Subscription(1, "peopleCreated", "https://hooks.example.com/webhook/fub", "Active")
    assert parse_subscriptions(b'{"webhooks":[' + hook + b"]}").items == (expected,)
    assert parse_subscription(hook) == expected
    for broken in (hook.replace(b'"id":1', b'"id":null'), hook.replace(b"Active", b""), hook.replace(b'"url"', b'"link"'), b"[]"):
        with pytest.raises(Malformed):
            parse_subscription(broken)
        (odd,) = parse_subscriptions(b'{"webhooks":[' + broken + b"]}").items
        assert isinstance(odd, UnusableSubscription)
        assert parse_subscriptions(b'{"webhooks":[' + broken + b"," + hook + b"]}").items == (odd, expected)
        with pytest.raises(Malformed, match="none of the webhooks can be used"):
            parse_subscriptions(b'{"webhooks":[' + broken + b",null]}")


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        (b"null", (None, None, "one is not an object")),
        (b'"https://hooks.example.com"', (None, None, "one is not an object")),
        (
            b'{"id":"x","event":"peopleCreated","url":"https://a.example","status":"Active"}',
            ("peopleCreated", "https://a.example", "one has no usable id"),
        ),
        (b'{"id":7,"event":"peopleCreated","url":{"href":"x"}}', ("peopleCreated", None, "webhook 7 has no usable url, status")),
        (
            b'{"id":7,"event":["x"],"url":"https://a.example","status":""}',
            (None, "https://a.example", "webhook 7 has no usable event, status"),
        ),
    ],
)
def test_an_unusable_subscription_says_what_it_lacks(element: bytes, expected: tuple[str | None, str | None, str]) -> None:
    """Its event and its URL are kept where they can be read, for whether it may be ours; the list may be an object with numeric keys."""
    (odd,) = parse_subscriptions(b'{"webhooks":{"4":' + element + b"}}").items
    assert odd == UnusableSubscription(*expected)
