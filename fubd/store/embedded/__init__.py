"""An embedded Postgres server, started and stopped by fubd itself."""

from fubd.store.embedded.binaries import installed
from fubd.store.embedded.cluster import default_home, running, temporary

__all__ = ["default_home", "installed", "running", "temporary"]
