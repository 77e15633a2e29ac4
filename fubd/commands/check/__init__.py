"""`python -m fubd check`: one line per thing that fubd needs, and for each problem its own fix."""

from fubd.commands.check.command import run, run_checks
from fubd.commands.check.result import CheckResult, CheckStatus

__all__ = ["CheckResult", "CheckStatus", "run", "run_checks"]
