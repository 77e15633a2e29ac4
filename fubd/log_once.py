"""Log a problem that repeats once for each of its reasons, and its end once."""

from __future__ import annotations

import logging

# A reason that never reads the same twice must not fill the log.
_MOST_REASONS = 20


class LogOnce:
    """The log lines of one problem, from its first failure to the next success."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._reasons: set[str] = set()

    def warning(self, message: str, reason: object) -> None:
        """Log `message` with its one argument `reason`, unless this reason was logged since the last success."""
        text = str(reason)
        if text not in self._reasons and len(self._reasons) < _MOST_REASONS:
            self._reasons.add(text)
            self._log.warning(message, text, stacklevel=2)

    def resolved(self, message: str, *args: object) -> None:
        """Log that it works again, if a failure was logged since the last success."""
        if self._reasons:
            self._reasons.clear()
            self._log.info(message, *args, stacklevel=2)
