"""Whether rows can be recorded, from both kinds of evidence: what the table refused, and what its columns say."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from fubd.clock import SystemClock
from fubd.errors import TableRefused
from fubd.metrics import Metrics
from fubd.problems import Problems
from fubd.recording_health import RecordingHealth

_MISSING, _CONSTRAINT = "the column stage_from is missing", "the constraint only_a is violated"


def _health() -> tuple[RecordingHealth, Problems]:
    clock, metrics = SystemClock(), Metrics(CollectorRegistry())
    problems = Problems(clock, metrics)
    return RecordingHealth(clock, metrics, problems), problems


def test_columns_that_are_right_again_end_what_they_refused() -> None:
    """A person whose reading they refused is read again by the next poll; what is kept ends it when it is recorded."""
    health, problems = _health()
    health.on_refusal([1, "a delivery"], TableRefused(_MISSING))
    health.on_table_checked(_MISSING)
    health.on_commit([2], wrote_rows=False)
    health.on_table_checked(None)
    assert (len(problems.current()), health.failure is None) == (1, False)
    health.on_commit(["a delivery"], wrote_rows=True)
    assert (problems.current(), health.failure) == ((), None)


def test_columns_that_are_right_again_do_not_end_another_refusal() -> None:
    """That ends when what was refused is recorded."""
    health, problems = _health()
    health.on_table_checked(_MISSING)
    health.on_refusal([1], TableRefused(_CONSTRAINT))
    health.on_table_checked(None)
    assert [problem.text for problem in problems.current()] == [_CONSTRAINT]
    health.on_commit([1], wrote_rows=True)
    assert (problems.current(), health.failure) == ((), None)


def test_a_row_that_is_written_ends_what_the_definition_refused_before_the_next_look() -> None:
    """The people refused for that reason hold the problem up no longer than what was kept."""
    health, problems = _health()
    health.on_table_checked(_MISSING)
    health.on_refusal([1, "a delivery"], TableRefused(_MISSING))
    health.on_commit(["a delivery"], wrote_rows=True)
    health.on_table_checked(None)
    assert (problems.current(), health.failure) == ((), None)
