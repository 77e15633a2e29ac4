"""fubd: every stage change in Follow Up Boss, recorded exactly once, by webhook and by polling."""

__version__ = "0.1.0"
