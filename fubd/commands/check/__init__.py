"""`python -m fubd check`: one line for each thing that fubd needs, each problem with its own fix."""

from fubd.commands.check.command import examined, run
from fubd.commands.check.finding import Finding, Status

__all__ = ["Finding", "Status", "examined", "run"]
