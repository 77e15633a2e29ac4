from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from fubd.metrics import Metrics
from tests.deploy.scaled import scaled
from tests.grafana.alerting import RULES
from tests.grafana.boards import without_data
from tests.grafana.prometheus import firing, prometheus
from tests.support.waiting import eventually


class Exporter:
    """Serves the daemon's own registry. Every scrape finds it as a daemon at work would show it, but for the fault that is set."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.metrics.build_info.labels("0.0.0", "0123456789ab").set(1)
        self.everything_moves = False
        self.imbalance = 0

    async def serve(self, _request: web.Request) -> web.Response:
        """Answer a scrape."""
        if self.everything_moves:
            self._move()
        self._work()
        return web.Response(body=generate_latest(self.metrics.registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _move(self) -> None:
        """Let each counter count, each histogram observe, and each gauge stand at 1."""
        for collector in vars(self.metrics).values():
            if isinstance(collector, Counter | Gauge | Histogram):
                for sample in next(iter(collector.collect())).samples:
                    if not sample.name.endswith(("_bucket", "_sum")):
                        _touch(collector.labels(**sample.labels) if sample.labels else collector)

    def _work(self) -> None:
        metrics, now = self.metrics, time.time()
        for source in ("webhook", "polling"):
            metrics.source_last_heard.labels(source).set(now)
            metrics.source_last_change.labels(source).set(now)
            metrics.source_healthy.labels(source).set(1)
        for event in ("peopleStageUpdated", "peopleCreated", "peopleDeleted"):
            metrics.webhook_subscription_active.labels(event).set(1)
        metrics.coverage.set(now)
        metrics.scrub_oldest.set(now)
        metrics.completeness_ratio.set(1)
        metrics.poll_interval_seconds.set(1800)
        metrics.db_up.set(1)
        metrics.lease_held.set(1)
        metrics.ledger_imbalance.set(self.imbalance)
        metrics.show_mode("steady")


def _touch(collector: Counter | Gauge | Histogram) -> None:
    if isinstance(collector, Counter):
        collector.inc()
    elif isinstance(collector, Histogram):
        collector.observe(0.1)
    else:
        collector.set(1)


@pytest.fixture
async def exporter() -> AsyncIterator[tuple[Exporter, TestServer]]:
    """Serve one."""
    exporter = Exporter()
    application = web.Application()
    application.router.add_get("/metrics", exporter.serve)
    server = TestServer(application, host="127.0.0.1")
    await server.start_server()
    yield exporter, server
    await server.close()


async def test_every_panel_shows_data(exporter: tuple[Exporter, TestServer], tmp_path: Path) -> None:
    """On a real Prometheus that scraped the daemon's registry at work, every query of the dashboard gives numbers."""
    exported, server = exporter
    exported.everything_moves = True
    async with prometheus(tmp_path, target=f"127.0.0.1:{server.port}") as url:

        async def all_show() -> bool:
            assert await without_data(url, rate_interval="4s", shown_seconds=10) == []
            return True

        assert await eventually(all_show, 30.0)


async def test_alerts_fire_on_a_real_prometheus(exporter: tuple[Exporter, TestServer], tmp_path: Path) -> None:
    """With the rules' times made short: all well raises nothing, a fault its own alert and no other, and a daemon that is gone another."""
    exported, server = exporter
    rules = scaled(RULES.read_text(), by=600, shortest_range_seconds=3)
    async with prometheus(tmp_path, target=f"127.0.0.1:{server.port}", rules=rules) as url:

        async def fires(*alerts: str) -> bool:
            assert await firing(url) == set(alerts)
            return True

        # Before the first scrape fubd is gone, by rules as fast as these.
        assert await eventually(fires, 30.0)
        exported.imbalance = 1
        assert await eventually(lambda: fires("FubdLedgerImbalance"), 30.0)
        exported.imbalance = 0
        assert await eventually(fires, 30.0)
        await server.close()
        assert await eventually(lambda: fires("FubdGone"), 30.0)
