"""One file a command: each talks to a person, and leaves the rules of the domain where they are."""
