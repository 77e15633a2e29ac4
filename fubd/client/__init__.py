"""The Follow Up Boss API over HTTP: requests, rate limit, retries and clock skew.

`fub` builds each request and returns its parsed response, `http` sends one request with retries, `rate_limit` decides when a request may
be sent, `clock_skew` estimates FUB's clock. Response bodies are parsed in `fubd.core.api`. No aiohttp exception leaves this package.
"""

from fubd.client.fub import FubClient
from fubd.client.http import Credentials, Timeouts

__all__ = ["Credentials", "FubClient", "Timeouts"]
