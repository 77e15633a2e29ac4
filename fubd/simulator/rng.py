"""Seeded randomness: the same seed gives the same account, the same faults and the same day."""

from __future__ import annotations

import random

_MASK = (1 << 64) - 1


class Rng(random.Random):
    """A seeded random generator. Never used for secrets."""

    def chance(self, probability: float) -> bool:
        """Return True with this probability (0 to 1). At 0 nothing is drawn, so a disabled fault does not shift other draws."""
        return probability > 0 and self.random() < probability


def hash64(seed: int, number: int) -> int:
    """Return 64 bits that depend only on the seed and the number (splitmix64), so that people need not be stored."""
    x = (number * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
