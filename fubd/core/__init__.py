"""The domain as pure functions and frozen values: no clock, no network, no randomness."""
