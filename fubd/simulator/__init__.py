"""A simulated Follow Up Boss account: the documented API, real webhooks, every fault, and the ground truth.

    clock = SimClock(datetime(2026, 3, 2, 9, tzinfo=UTC))
    account = Account(seed=7, people=500, clock=clock)
    simulator = Simulator(account)
    async with simulator.running() as url:
        simulator.subscribe("peopleStageUpdated", "http://127.0.0.1:8080/webhook/fub")
        account.move(account.ids[0], "ACQ - Offers Made")
        await simulator.deliveries.drain()
    print(score(simulator.truth, rows, sightings=simulator.sightings))

The daemon imports nothing from here, and nothing here imports the daemon.
"""

from fubd.simulator.account import Account, Lags
from fubd.simulator.behaviour import Arrays, Behaviour, Merge, Spelling, UpdatedAfter
from fubd.simulator.clock import SimClock, SkewedClock
from fubd.simulator.events import encode, sign
from fubd.simulator.faults import ApiFault, DeliveryFault, Faults
from fubd.simulator.oddities import Oddity
from fubd.simulator.score import Score, score
from fubd.simulator.service import Simulator
from fubd.simulator.sightings import Sighting, Sightings
from fubd.simulator.truth import TrueChange, Truth

__all__ = [
    "Account",
    "ApiFault",
    "Arrays",
    "Behaviour",
    "DeliveryFault",
    "Faults",
    "Lags",
    "Merge",
    "Oddity",
    "Score",
    "Sighting",
    "Sightings",
    "SimClock",
    "Simulator",
    "SkewedClock",
    "Spelling",
    "TrueChange",
    "Truth",
    "UpdatedAfter",
    "encode",
    "score",
    "sign",
]
