"""The values of the core do not change, and have no other attributes than theirs."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest

import fubd.core

VALUES = [
    value
    for path in sorted(Path(fubd.core.__file__).parent.glob("*.py"))
    for value in vars(import_module(f"fubd.core.{path.stem}")).values()
    if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == f"fubd.core.{path.stem}"
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_frozen_with_slots(value: type) -> None:
    """What a module keeps for itself may change while it is built."""
    assert "__slots__" in vars(value)
    assert vars(value)["__dataclass_params__"].frozen or value.__name__.startswith("_")
