from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fubd.settings import variables
from fubd.store.dsn import Tls, parse
from tests.deploy.programs import CHECKOUT, run
from tests.support.programs import require_program

DEPLOY = CHECKOUT / "deploy"
UNIT = DEPLOY / "fubd.service"
ENVIRONMENT = {
    "POSTGRES_PASSWORD": "invented@password/1",
    "FUBD_METRICS_TOKEN": "invented-token-of-16",
    "FUBD_READER_PASSWORD": "invented-reader",
    "GRAFANA_ADMIN_PASSWORD": "invented-admin",
}


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """Read the compose file."""
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return document


def with_variables(text: str) -> str:
    """Replace the variables in a text of the compose file, as Docker does."""
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda match: ENVIRONMENT[match[1]], text)


def test_fubd_gets_all_of_its_variables_and_no_other(composed: dict[str, Any]) -> None:
    """Each setting can be set in deploy/.env, and the passwords of the other services stay with them."""
    assert not [name for name, service in composed["services"].items() if "env_file" in service]
    assert set(composed["services"]["fubd"]["environment"]) == set(variables()) - {"FUBD_HOST"}


def test_ports_are_bound_to_the_loopback(composed: dict[str, Any]) -> None:
    """Every port is bound to 127.0.0.1."""
    ports = [port for service in composed["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_have_versions(composed: dict[str, Any]) -> None:
    """Every image has a version, and fubd is built from the checkout."""
    images = {name: service.get("image") for name, service in composed["services"].items()}
    assert images.pop("fubd") is None
    assert (DEPLOY / composed["services"]["fubd"]["build"] / "Dockerfile").is_file()
    assert all(re.fullmatch(r"[a-z/]+:v?\d[\d.]*", str(image)) for image in images.values())


def test_mounted_files_exist(composed: dict[str, Any]) -> None:
    """Every mounted file is in the checkout, every volume, secret and dependency is declared, and every service is restarted."""
    for service in composed["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in composed["volumes"], volume
        assert set(service.get("secrets", [])) <= composed["secrets"].keys()
        assert set(service.get("depends_on", [])) <= composed["services"].keys()
        assert service["restart"] == "unless-stopped"


def test_fubd_reaches_the_database_through_the_socket(composed: dict[str, Any]) -> None:
    """The database's address is a socket in a folder that both share, so no TLS is needed; the password may have any characters."""
    services = composed["services"]
    dsn = parse(with_variables(services["fubd"]["environment"]["DATABASE_URL"]))
    assert (dsn.host, dsn.tls, dsn.user, dsn.database) == ("/run/postgresql", Tls.DISABLE, "fubd", "fubd")
    assert dsn.password == ENVIRONMENT["POSTGRES_PASSWORD"]
    assert f"postgres-socket:{dsn.host}:ro" in services["fubd"]["volumes"]
    assert "postgres-socket:/var/run/postgresql" in services["postgres"]["volumes"]


def test_prometheus_finds_fubd_and_its_token(composed: dict[str, Any]) -> None:
    """The scrape target is the service at its port, and the token file is the secret with the daemon's token."""
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["job_name"] == "fubd"
    assert job["static_configs"] == [{"targets": [f"fubd:{composed['services']['fubd']['environment']['PORT']}"]}]
    secret = Path(job["authorization"]["credentials_file"])
    assert secret.parent == Path("/run/secrets")
    assert secret.name in composed["services"]["prometheus"]["secrets"]
    assert composed["secrets"][secret.name] == {"environment": "FUBD_METRICS_TOKEN"}


def test_grafana_gets_the_variables_of_its_provisioning(composed: dict[str, Any]) -> None:
    """Each variable of the data sources is set for Grafana, and the dashboards are where the provider looks."""
    grafana = composed["services"]["grafana"]
    provisioning = CHECKOUT / "grafana" / "provisioning"
    variables = set(re.findall(r"(?<!\$)\$(\w+)", (provisioning / "datasources" / "fubd.yaml").read_text()))
    assert variables
    assert variables <= grafana["environment"].keys()
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "fubd.yaml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in grafana["volumes"]]
    assert {f"{provider['options']['path']}/{name}.json" for name in ("fubd", "business")} <= set(mounted)


async def test_the_compose_file_meets_its_schema(tmp_path: Path) -> None:
    """It meets the schema of the format, which would find a misspelt key."""
    text = (DEPLOY / "compose.yaml").read_text()
    for name, content, code in (("good", text, 0), ("bad", text.replace("stop_grace_period", "stop_grace_periode"), 1)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(content)
        ended = await run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file))
        assert ended.code == code, ended.report


async def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """Systemd finds no unknown or misplaced line; the program is replaced by one that every machine has."""
    text = UNIT.read_text()
    program = "/opt/fubd/.venv/bin/python"
    assert text.count(f"ExecStart={program} -m fubd\n") == 1
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(program, "/bin/true"))
    ended = await run(require_program("systemd-analyze"), "verify", "--man=no", str(unit))
    assert ended.code == 0, ended.report
    assert UNIT.name not in ended.error, ended.report


async def test_the_unit_is_hardened() -> None:
    """Systemd rates the unit's exposure below 1.5 of 10."""
    ended = await run(require_program("systemd-analyze"), "security", "--offline=true", "--threshold=15", "--no-pager", str(UNIT))
    assert ended.code == 0, ended.report


def test_the_unit_restarts_fubd() -> None:
    """Fubd is started again when it ends, except after a bad configuration, and has more time to stop than it needs."""
    lines = set(UNIT.read_text().splitlines())
    assert {"Restart=always", "RestartPreventExitStatus=2", "KillSignal=SIGTERM", "TimeoutStopSec=30s"} <= lines
