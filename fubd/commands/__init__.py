"""The commands, one module each: they read arguments, call the parts, and print for a person. They contain no domain rules."""
