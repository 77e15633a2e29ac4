"""Reads Follow Up Boss: people who changed, people unverified for longest, the whole account, and people named by webhooks.

The rules, most important first:

- A poll misses nothing that changed before it began. A poll that cannot prove this is incomplete.
- Coverage is the instant (FUB's clock) at which a complete poll began, minus a safety overlap; it never moves back.
- Absence from a list never means deleted: the person is read by id, and only a 404 counts.
- API calls are scarce: usually one per poll.

One subject per file: `incremental` (people who changed), `sweep` (the whole account), `scrub` (people unverified for longest), `refetch`
(people named by webhooks), `burst` (how long these wait for the end of a burst), `poll_run` (what the first four share), `context` (what
they work with, and how a run is recorded), `catch_up` (read until everything is covered), `mode` (which mode), `poller` (when to do what),
`recovery` (one run without a daemon), `trash_visibility` (whether lists show people in Trash), `unread` (people whose data could not be
used), `blind_time` (the time in which neither source was alive).
"""

from fubd.poller.context import CoveredInstant, PollContext
from fubd.poller.poll_run import PollPolicy, Progress
from fubd.poller.poller import Poller
from fubd.poller.recovery import RecoveryResult, recover
from fubd.poller.refetch import Refetcher
from fubd.poller.unread import UnreadPeople

__all__ = ["CoveredInstant", "PollContext", "PollPolicy", "Poller", "Progress", "RecoveryResult", "Refetcher", "UnreadPeople", "recover"]
