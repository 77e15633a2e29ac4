"""Follow Up Boss over HTTP: bytes in and out, its rate limit, its clock, and patience.

`feed` says what is asked and what it means; `connection` brings one answer home, over as many attempts as it takes; `limiter` says when we
may send; `skew` knows FUB's clock. What the answers say is read in `fubd.core.api`. No exception of aiohttp leaves this folder.
"""

from fubd.client.fub import FubClient

__all__ = ["FubClient"]
