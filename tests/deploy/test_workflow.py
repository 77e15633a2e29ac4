"""The workflow of the CI."""

from __future__ import annotations

import sys
import tomllib
from typing import Any

import pytest
import yaml

from tests.deploy.programs import CHECKOUT, run

FILE = CHECKOUT / ".github" / "workflows" / "ci.yaml"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    """Return the jobs by name."""
    document: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return dict(document["jobs"])


async def test_the_workflows_meet_their_schema() -> None:
    """GitHub's schema for workflows accepts the files."""
    files = [str(path) for path in FILE.parent.glob("*.yaml")]
    ended = await run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    assert ended.code == 0, ended.report


def test_the_whole_suite_runs_on_every_supported_python(jobs: dict[str, Any]) -> None:
    """`.ci/run` runs on each Python from the oldest that pyproject.toml allows."""
    linux = jobs["linux"]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={linux['strategy']['matrix']['python'][0]}"
    assert linux["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert ".ci/run" in [step.get("run") for step in linux["steps"]]


def test_the_fast_tests_run_on_windows_and_macos(jobs: dict[str, Any]) -> None:
    """The fast tests run on both."""
    other = jobs["other-systems"]
    assert other["strategy"]["matrix"]["os"] == ["windows-latest", "macos-latest"]
    assert any('-m "not slow"' in step.get("run", "") for step in other["steps"])


def test_the_lock_is_audited_and_renewed_with_its_list_of_components() -> None:
    """Both files are made by the commands that CONTRIBUTING.md and the lock name: a test compares the two."""
    document = yaml.safe_load((FILE.parent / "lock.yaml").read_text(encoding="utf-8"))
    assert document[True]["schedule"]
    steps = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in document["jobs"].items()}
    assert "pip-audit --disable-pip --requirement deploy/requirements.txt" in steps["audit"]
    guide = (CHECKOUT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for made_by in (
        "cyclonedx-py requirements deploy/requirements.txt --output-reproducible --output-file -",
        "| jq 'del(.components[].externalReferences, .components[].description, .metadata.tools)' > deploy/sbom.json",
    ):
        assert made_by in steps["renew"]
        assert made_by in guide
    locked_by = (CHECKOUT / "deploy" / "requirements.txt").read_text(encoding="utf-8").splitlines()[1].removeprefix("#").strip()
    assert locked_by in steps["renew"]
