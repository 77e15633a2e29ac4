"""Reads Follow Up Boss: what changed since the last poll, who was not verified for long, the whole account, and who a webhook spoke of.

The rules, in the order in which they matter:

- Nothing that changed before a poll began is missed by it. A poll that cannot show this is not complete.
- Coverage is the instant (FUB's clock) at which a complete poll began, less a safety overlap; it never goes back.
- Nobody is gone because a list does not show them. They are asked for by id, one by one, and only a 404 counts.
- Calls are scarce: usually one a poll.

One noun a file: `walk` (the changed), `sweep` (everybody), `scrub` (the longest unverified), `hints` (those a webhook spoke of), `run`
(what all four share), `trash` (whether lists show it), `reader`, which runs errands until all is covered, `poller`, which decides when, and
`blindness`, its account of the time in which nobody watched.
"""

from fubd.poller.poll_run import PollPolicy, Progress
from fubd.poller.poller import Poller, RecoveryResult

__all__ = ["PollPolicy", "Poller", "Progress", "RecoveryResult"]
