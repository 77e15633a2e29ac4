"""The demo: a scripted story on a simulated Follow Up Boss account."""
