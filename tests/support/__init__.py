"""Shared by tests: databases, real processes, a network that fails on demand, and waiting for conditions."""
