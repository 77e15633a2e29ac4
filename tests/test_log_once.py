"""Problems that repeat are logged once."""

from __future__ import annotations

import logging

import pytest

from fubd.log_once import LogOnce


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log, informational lines included."""
    caplog.set_level(logging.INFO)
    return caplog


def test_each_reason_is_logged_once_until_it_works_again(lines: pytest.LogCaptureFixture) -> None:
    """A reason that comes back after a success is news again."""
    once = LogOnce(logging.getLogger("test"))
    for reason in ("refused", "timeout", "refused", "timeout"):
        once.warning("cannot connect: %s", reason)
    once.resolved("connected after %d tries", 4)
    once.warning("cannot connect: %s", OSError("refused"))
    assert lines.messages == ["cannot connect: refused", "cannot connect: timeout", "connected after 4 tries", "cannot connect: refused"]


def test_the_end_of_what_never_began_is_not_logged(lines: pytest.LogCaptureFixture) -> None:
    """Every success may call it."""
    LogOnce(logging.getLogger("test")).resolved("connected")
    assert lines.messages == []


def test_reasons_without_end_do_not_fill_the_log(lines: pytest.LogCaptureFixture) -> None:
    """Some texts hold a number that never repeats."""
    once = LogOnce(logging.getLogger("test"))
    for number in range(1_000):
        once.warning("cannot connect: %s", number)
    assert len(lines.messages) == 20
