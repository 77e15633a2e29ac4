"""Benchmarks, each with a yardstick in the same run; none is part of the tests."""
