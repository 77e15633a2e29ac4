"""The problems that hold now. The part that has the evidence begins and ends its own problem; everything else only reads them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, tzinfo

from fubd.core.problems import Problem, ProblemName
from fubd.core.text import format_instant, printable
from fubd.metrics import Metrics
from fubd.ports import Clock

_log = logging.getLogger("fubd.problems")

# One that begins again so soon is the same: a full disk takes one statement and refuses the next. From then on it ends only when it has not
# been reported for as long. Each look at the database reports its end, so nothing is lost by waiting.
_INTERMITTENT = frozenset({ProblemName.NOT_RECORDING})
_STEADY_SECONDS = 30.0


class Problems:
    """Keeps the current problems, logs each once when it begins and once when it ends, and exports `fubd_problem`.

    `zone`: of the times in these log lines.
    """

    def __init__(self, clock: Clock, metrics: Metrics, *, zone: tzinfo = UTC) -> None:
        self._clock = clock
        self._metrics = metrics
        self._zone = zone
        self._current: dict[ProblemName, Problem] = {}
        self._undecided: set[ProblemName] = set()
        # When each was last reported (monotonic), those that hold on and off, and how those that may do so were when they last ended.
        self._reported_at: dict[ProblemName, float] = {}
        self._unsteady: set[ProblemName] = set()
        self._ended: dict[ProblemName, Problem] = {}

    def begin(self, name: ProblemName, text: str) -> None:
        """Report that a problem holds. While it holds already only its text is updated; its begin and the log line stay single."""
        known, text = self._current.get(name), printable(text)
        self._undecided.discard(name)
        is_again = name in self._ended and self._is_recent(name)
        self._reported_at[name] = self._clock.monotonic()
        if known is not None:
            self._current[name] = replace(known, text=text)
            return
        _log.warning("Problem %s: %s", name, text)
        self._metrics.problem.labels(name).set(1)
        if is_again:
            self._unsteady.add(name)
        self._current[name] = Problem(name, self._ended[name].since if is_again else self._clock.now(), text)

    def _is_recent(self, name: ProblemName) -> bool:
        return self._clock.monotonic() - self._reported_at.get(name, float("-inf")) < _STEADY_SECONDS

    def end(self, name: ProblemName) -> None:
        """Report that a problem is over. Nothing happens when it did not hold, or holds on and off."""
        if name in self._unsteady and self._is_recent(name):
            return
        ended = self._current.pop(name, None)
        self._unsteady.discard(name)
        self._undecided.discard(name)
        if ended is not None:
            _log.info("Problem %s is over; it began at %s.", name, format_instant(ended.since, self._zone))
            self._metrics.problem.labels(name).set(0)
            if name in _INTERMITTENT:
                self._ended[name] = ended

    def inherit(self, problems: Iterable[Problem]) -> None:
        """Continue problems that another process reported. Each holds until the part that has the evidence begins or ends it."""
        for problem in problems:
            known = self._current.get(problem.name)
            if known is None:
                _log.info("Problem %s holds since %s: %s", problem.name, format_instant(problem.since, self._zone), problem.text)
                self._metrics.problem.labels(problem.name).set(1)
                self._undecided.add(problem.name)
                self._current[problem.name] = problem
            else:
                is_announced = known.announced or problem.announced
                self._current[problem.name] = replace(known, since=min(known.since, problem.since), announced=is_announced)

    def undecided(self, name: ProblemName) -> Problem | None:
        """Return a problem that was inherited, and that no evidence of this process has begun or ended yet."""
        return self._current.get(name) if name in self._undecided else None

    def mark_announced(self, name: ProblemName) -> None:
        """Note that an alert says that a current problem began."""
        self._current[name] = replace(self._current[name], announced=True)

    def current(self) -> tuple[Problem, ...]:
        """Return the problems that hold now, longest first."""
        return tuple(sorted(self._current.values(), key=lambda problem: (problem.since, problem.name)))
