"""The first request of a connection is parsed once it is whole; what cannot be waited for is passed on at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fubd.server.first_request import FirstRequest

LIMIT = 1000
POST = b"POST /webhook/fub HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"


@given(st.lists(st.integers(1, len(POST) + 2), unique=True), st.booleans())
def test_a_request_in_pieces_is_whole_with_its_last_byte(cuts: list[int], bare: bool) -> None:
    """However it is cut, it is passed on with its last byte and not before; with bare line feeds too."""
    sent = (POST.replace(b"\r\n", b"\n") if bare else POST) + b"abc"
    first = FirstRequest(LIMIT)
    edges = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    whole = [first.add(sent[begin:end]) for begin, end in pairwise(edges)]
    assert whole == [False] * (len(whole) - 1) + [True]
    assert first.received == sent


@pytest.mark.parametrize("begun", [b"P", b"GET / HTTP/1.1\r\nHost: a\r\n", POST[:-1]])
def test_an_unfinished_head_waits(begun: bytes) -> None:
    """It lacks more than its body."""
    first = FirstRequest(LIMIT)
    assert not first.add(begun)
    assert not first.lacks_only_its_body


def test_an_unfinished_body_waits() -> None:
    """It can be answered without its body."""
    first = FirstRequest(LIMIT)
    assert not first.add(POST + b"ab")
    assert first.lacks_only_its_body


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        POST + b"abcGET / HTTP",
        POST.replace(b"Length: 3", b"Length: 1001"),
        POST.replace(b"Length: 3", b"Length: -1"),
        POST.replace(b"Length: 3", b"Length: 3\r\ncontent-length: 4"),
        POST.replace(b"Host: a", b"Expect: 100-continue"),
        POST.replace(b"Host: a", b"transfer-encoding: chunked"),
        b"\x16\x03\x01\x02",
        b"\r\n",
        b"get",
        b"G" * (LIMIT + 1),
    ],
)
def test_the_parser_judges_everything_else_at_once(sent: bytes) -> None:
    """What is no HTTP, is too large, or whose sender waits for us."""
    first = FirstRequest(LIMIT)
    assert first.add(sent)
    assert not first.lacks_only_its_body
