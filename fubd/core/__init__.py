"""What the project is about, and nothing of the world: no clock, no network, no chance."""
