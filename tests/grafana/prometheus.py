"""A real Prometheus for tests: it scrapes targets on the loopback every second and evaluates rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import yaml

from tests.support.ports import free_port
from tests.support.programs import require_program
from tests.support.waiting import eventually


@asynccontextmanager
async def prometheus(folder: Path, *, targets: Mapping[str, str], rules: str | None = None) -> AsyncIterator[str]:
    """Yield the URL of a running Prometheus. `targets`: host and port of each fubd by job name. `rules`: the text of a rules file."""
    _configure(folder, targets, rules)
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        require_program("prometheus"),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(lambda: _is_ready(f"http://{address}", process), 30.0)
        yield f"http://{address}"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 10.0)
        if process.returncode is None:
            process.kill()
            await process.wait()


def _configure(folder: Path, targets: Mapping[str, str], rules: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    configuration: dict[str, object] = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()],
    }
    if rules is not None:
        (folder / "rules.yaml").write_text(rules)
        configuration["rule_files"] = ["rules.yaml"]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))


async def _is_ready(url: str, process: asyncio.subprocess.Process) -> bool:
    assert process.returncode is None
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(f"{url}/-/ready") as response:
            return response.status == 200
    return False


async def firing(url: str, *, job: str = "fubd") -> set[str]:
    """Return the alerts that fire now for a job."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/alerts") as response:
        answer = await response.json()
    return {
        alert["labels"]["alertname"] for alert in answer["data"]["alerts"] if (alert["state"], alert["labels"]["job"]) == ("firing", job)
    }


async def value(url: str, query: str) -> float:
    """Return the value of a query now, summed over its series; 0 without any."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/query", params={"query": query}) as response:
        answer = await response.json()
    return sum(float(series["value"][1]) for series in answer["data"]["result"])
