"""The current behaviour and faults, shared by all parts of the simulator."""

from __future__ import annotations

from dataclasses import dataclass, field

from fubd.simulator.behaviour import Behaviour
from fubd.simulator.faults import Faults


@dataclass(slots=True)
class Conditions:
    """The current behaviour and faults. Both may be replaced at any time."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    faults: Faults = field(default_factory=Faults)
