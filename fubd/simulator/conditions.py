"""The current behaviour and faults, shared by all parts of the simulator."""

from __future__ import annotations

from dataclasses import dataclass, field

from fubd.simulator.behaviour import Behaviour
from fubd.simulator.faults import Faults
from fubd.simulator.oddities import Oddity


@dataclass(slots=True)
class Conditions:
    """The current behaviour and faults, both replaceable at any time, and the people who are malformed in every answer."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    faults: Faults = field(default_factory=Faults)
    oddities: dict[int, Oddity] = field(default_factory=dict)
