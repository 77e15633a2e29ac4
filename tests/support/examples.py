"""How many examples a property is tested with, in proportion to the profile in use."""

from __future__ import annotations

from hypothesis import settings


def examples(factor: float) -> settings:
    """Return settings with so many times the profile's number of examples, for a test that is cheaper or dearer than most."""
    return settings(max_examples=round(factor * settings().max_examples))
