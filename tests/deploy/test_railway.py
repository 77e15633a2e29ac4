from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from fubd.settings import FOR_THE_DAEMON, variables
from tests.deploy.programs import CHECKOUT

FILE = CHECKOUT / ".railway" / "railway.py"
GUIDE = CHECKOUT / "deploy" / "README.md"


@pytest.fixture(scope="module")
def declared() -> dict[str, Any]:
    """Evaluate the file as Railway's program does: load it, call `main`, take its graph as JSON."""
    spec = importlib.util.spec_from_file_location("railway_file", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    graph: dict[str, Any] = json.loads(json.dumps({"partial": module.PARTIAL, "project": module.main().to_graph()}))
    return graph


@pytest.fixture(scope="module")
def service(declared: dict[str, Any]) -> dict[str, Any]:
    """Return the only service."""
    (resource,) = declared["project"]["resources"]
    assert isinstance(resource, dict)
    return resource


def test_only_the_service_is_declared(declared: dict[str, Any], service: dict[str, Any]) -> None:
    """The file declares one service by name, nothing else of the project, and no volume."""
    assert declared["partial"] == "fubd"
    assert service["address"] == "service.fubd"
    assert not service.keys() & {"volumeMounts", "volumeAttachments"}


def test_the_life_cycle_is_declared(service: dict[str, Any]) -> None:
    """The readiness route gates a deploy, 30 s are left to stop, instances overlap, and a process that ends is started again."""
    deploy = service["deploy"]
    assert (deploy["healthcheckPath"], deploy["healthcheckTimeout"]) == ("/readyz", 300)
    assert (deploy["drainingSeconds"], deploy["overlapSeconds"]) == (30, 20)
    assert deploy["restartPolicyType"] == "ALWAYS"
    assert deploy["numReplicas"] == 1
    assert "startCommand" not in deploy, "a start command runs in a shell, which does not pass SIGTERM on"


def test_the_life_cycle_is_in_variables_too(service: dict[str, Any]) -> None:
    """The life cycle is also in the service's variables, with the same values, and the guide names them."""
    values = {name: made["value"] for name, made in service["variables"].items() if made["type"] == "literal"}
    assert values == {
        "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": str(service["deploy"]["drainingSeconds"]),
        "RAILWAY_DEPLOYMENT_OVERLAP_SECONDS": str(service["deploy"]["overlapSeconds"]),
        "RAILWAY_HEALTHCHECK_TIMEOUT_SEC": str(service["deploy"]["healthcheckTimeout"]),
    }
    guide = GUIDE.read_text()
    assert all(f"`{name}`" in guide for name in values)


def test_the_file_contains_no_value_of_a_setting(service: dict[str, Any]) -> None:
    """Every setting that it names exists, the required ones are among them, and each keeps the value from the dashboard."""
    kept = {name for name, made in service["variables"].items() if made == {"type": "preserve"}}
    assert kept <= set(variables())
    assert kept >= FOR_THE_DAEMON | {"DATABASE_URL"}


def test_there_is_no_older_configuration() -> None:
    """There is no railway.toml or railway.json: a service cannot be managed by both kinds of file."""
    assert not [name for name in ("railway.toml", "railway.json") if (CHECKOUT / name).exists()]
    assert "railway.toml" in GUIDE.read_text()
