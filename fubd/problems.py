"""The problems that hold now. The part that has the evidence begins and ends its own problem; everything else only reads them."""

from __future__ import annotations

import logging

from fubd.core.problems import Problem, ProblemName
from fubd.metrics import Metrics
from fubd.ports import Clock

_log = logging.getLogger("fubd.problems")


class Problems:
    """Keeps the current problems, logs each once when it begins and once when it ends, and exports `fubd_problem`."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._current: dict[ProblemName, Problem] = {}

    def begin(self, name: ProblemName, text: str) -> None:
        """Report that a problem holds. While it holds already only its text is updated; its begin and the log line stay single."""
        known = self._current.get(name)
        if known is None:
            _log.warning("Problem %s: %s", name, text)
            self._metrics.problem.labels(name).set(1)
        since = self._clock.now() if known is None else known.since
        self._current[name] = Problem(name, since, text)

    def end(self, name: ProblemName) -> None:
        """Report that a problem is over. Nothing happens when it did not hold."""
        ended = self._current.pop(name, None)
        if ended is not None:
            _log.info("Problem %s is over; it began at %s.", name, ended.since.isoformat(timespec="seconds"))
            self._metrics.problem.labels(name).set(0)

    def current(self) -> tuple[Problem, ...]:
        """Return the problems that hold now, longest first."""
        return tuple(sorted(self._current.values(), key=lambda problem: (problem.since, problem.name)))
