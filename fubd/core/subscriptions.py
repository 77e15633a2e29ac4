"""Webhook subscriptions as Follow Up Boss lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subscription:
    """One registered webhook. `status` is `Active` or `Disabled`."""

    id: int
    event: str
    url: str
    status: str
