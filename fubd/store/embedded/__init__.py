"""An embedded Postgres server, started and stopped by fubd itself."""

from fubd.store.embedded.binaries import find_installation
from fubd.store.embedded.cluster import default_home, embedded_server, temporary_server

__all__ = ["default_home", "embedded_server", "find_installation", "temporary_server"]
