"""Mutation testing: python -m tests.proofs.mutation [core|ingest|poller|sql|rules ...] [--sample N] [--seed N] [--first N].

Each mutant is one small change in a copy of the checkout; the tests that concern the changed file must then fail. The program prints each
mutant with the test that killed it, and the share that was killed. A sample is drawn with a seed: it can be repeated, continued with
`--first`, and stays the same where the code does.

A mutant is tested in a fork of this process, which has imported every library already: that saves most of the CPU time. A mutated rule is
tested by promtool, with the cases of its alert.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import cache_from_source
from pathlib import Path
from random import Random
from typing import NoReturn

import pytest
import yaml
from typing_extensions import override

from fubd.store import embedded
from tests.deploy.edges import EDGES
from tests.deploy.programs import run
from tests.deploy.test_edges import write_tests

_CHECKOUT = Path(__file__).parents[2]
_IGNORED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
# A mutant that never stops computing is ended by the first limit, one that never stops waiting by the second.
_CPU_SECONDS = 300
_TIMEOUT_SECONDS = 1_800
_OUTPUT = "output"
_RULES = "deploy/prometheus/rules.yaml"


@dataclass(frozen=True, slots=True)
class Target:
    """What is mutated, and the tests that must notice: those `of` a file or of its folder, else `tests`, which concern all of them."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def tests_of(self, path: str) -> tuple[str, ...]:
        """Return the tests for a file."""
        return self.of.get(Path(path).stem, self.of.get(Path(path).parent.name, self.tests))


TARGETS = {
    "core": Target(
        ("fubd/core/*.py",),
        ("tests/core",),
        {
            name: tuple(f"tests/{test}.py" for test in ("core/test_values", *tests))
            for name, tests in {
                "alerts": ("core/test_alerts", "test_notifier"),
                "api": ("core/test_api", "core/test_odd_answers", "core/test_api_subscriptions"),
                "batch": ("core/test_batch", "test_parts", "store/test_recording"),
                "daily_summary": ("core/test_daily_summary",),
                "delivery_attempts": ("core/test_delivery_attempts",),
                "freshness": ("core/test_freshness",),
                "json_values": ("core/test_api", "core/test_webhook", "core/test_odd_answers"),
                "observation": ("core/test_observation", "core/test_webhook"),
                "pacing": ("core/test_pacing", "poller/test_mode"),
                "problems": ("test_problems", "test_problem_reports", "core/test_daily_summary"),
                "reads": ("core/test_two_clocks", "core/test_timeline"),
                "reconcile": ("core/test_reconcile", "test_recording_waits", "store/test_recording", "store/test_histories"),
                "redaction": ("store/test_forgetting",),
                "stored_state": ("store/test_state", "commands/test_status"),
                "subscriptions": ("core/test_subscriptions",),
                "text": ("core/test_text", "core/test_webhook", "core/test_alerts"),
                "ties": ("core/test_timeline", "core/test_two_clocks"),
                "timeline": ("core/test_timeline", "core/test_two_clocks", "core/test_reconcile"),
                "webhook": ("core/test_webhook",),
            }.items()
        }
        # The others of its tests start a process each.
        | {"explanation": ("tests/commands/test_explain.py", "-k", "role or merged or disagrees or top_to_bottom or newest or never_come")},
    ),
    "ingest": Target(
        ("fubd/ingest.py", "fubd/pending.py"),
        ("tests/test_pending.py", "tests/test_recording_waits.py", "tests/test_parts.py", "tests/test_ingest.py", "-k", "not pooler"),
    ),
    "poller": Target(
        ("fubd/poller/*.py",),
        ("tests/poller", "--ignore", "tests/poller/test_economy.py", "--ignore", "tests/poller/test_simulator.py"),
    ),
    "sql": Target(
        ("fubd/sql/recording/*.sql", "fubd/sql/state/*.sql", "fubd/sql/forgetting/*.sql"),
        (
            *(f"tests/store/test_{name}.py" for name in ("state", "recording", "lease", "forgetting", "paging", "views", "histories")),
            "tests/test_retention.py",
        ),
        {
            "recording": ("tests/store/test_recording.py", "tests/store/test_histories.py"),
            "forgetting": ("tests/store/test_forgetting.py",),
            "release_quarantined": ("tests/commands/test_replay.py",),
            "last_run": ("tests/test_problem_reports.py",),
            "delivery_attempts": ("tests/test_ingest.py",),
        },
    ),
    "rules": Target((_RULES,), ()),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the text between two offsets of a file is replaced."""

    path: str
    begin: int
    end: int
    text: str

    def describe(self, source: str) -> str:
        """Return where the change is, and what it is."""
        line = source.count("\n", 0, self.begin) + 1
        return f"{self.path}:{line}: {source[self.begin : self.end]!r} -> {self.text!r}"

    def draw(self, source: str, seed: int) -> float:
        """Return a random number that stays the same while other lines of the file change: so a sample does, too."""
        begin, end = source.rfind("\n", 0, self.begin) + 1, source.find("\n", self.end)
        line, repeated = source[begin:end], source.count(source[begin:end], 0, begin)
        return Random(f"{seed} {self.path} {line} {self.begin - begin} {self.text}{repeated or ''}").random()

    def apply(self, source: str) -> str:
        """Return the changed source."""
        return source[: self.begin] + self.text + source[self.end :]


_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
# Words of SQL and of PromQL, and what they become.
_WORDS = {
    "AND": "OR",
    "OR": "AND",
    "NOT EXISTS": "EXISTS",
    "IS NULL": "IS NOT NULL",
    "IS NOT NULL": "IS NULL",
    "DESC": "ASC",
    "min": "max",
    "max": "min",
    "least": "greatest",
    "greatest": "least",
    "FOR NO KEY UPDATE": "",
    "FOR UPDATE": "",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "and": "or",
    "unless": "and",
    "UNION ALL": "UNION",
    "LEFT JOIN": "JOIN",
}
_WORD = re.compile(
    "|".join(rf"\b{re.escape(word)}\b" if word[0].isalpha() else rf"(?<= ){re.escape(word)}(?= )" for word in sorted(_WORDS, key=len)[::-1])
)
# What is not code: comments of SQL, and of rules their prose and the names of recorded series.
_PROSE = re.compile(r"--.*|^ *(?:#|summary:|- record:).*|^( *)description:.*(?:\n\1 +.*)*", re.MULTILINE)
_FOR = re.compile(r"(?<=\bfor: )\d+")


class _Finder(ast.NodeVisitor):
    """Finds the mutants of a Python file."""

    def __init__(self, path: str, source: str) -> None:
        self.found: list[Mutant] = []
        self._path = path
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def _add(self, begin: int, end: int, text: str) -> None:
        self.found.append(Mutant(self._path, begin, end, text))

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        # Offsets of columns are bytes; the code is ASCII wherever it is not text.
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)

    @override
    def visit_Compare(self, node: ast.Compare) -> None:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            if type(operator) in _COMPARISONS:
                begin, end = self._span(left)[1], self._span(right)[0]
                if re.fullmatch(r"[\s<>=!a-z]+", self._source[begin:end]):
                    self._add(begin, end, f" {_COMPARISONS[type(operator)]} ")
            left = right
        self.generic_visit(node)

    @override
    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            begin, end = self._span(left)[1], self._span(right)[0]
            if self._source[begin:end].strip() in {"and", "or"}:
                self._add(begin, end, " or " if isinstance(node.op, ast.And) else " and ")
        self.generic_visit(node)

    @override
    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            begin, _ = self._span(node)
            self._add(begin, begin + len("not "), "")
        self.generic_visit(node)

    @override
    def visit_Constant(self, node: ast.Constant) -> None:
        begin, end = self._span(node)
        if isinstance(node.value, bool):
            self._add(begin, end, str(not node.value))
        elif isinstance(node.value, int | float):
            self._add(begin, end, str(node.value + 1))

    @override
    def visit_Expr(self, node: ast.Expr) -> None:
        # A call whose result is not used has an effect: without it a test must fail.
        if isinstance(node.value, ast.Call | ast.Await):
            self._add(*self._span(node), "pass")
        self.generic_visit(node)

    @override
    def visit_If(self, node: ast.If) -> None:
        self._add(*self._span(node.test), "False")
        self.generic_visit(node)


def find_mutants(path: str, source: str) -> list[Mutant]:
    """Return the mutants of a file."""
    if path.endswith(".py"):
        finder = _Finder(path, source)
        finder.visit(ast.parse(source))
        return finder.found
    return list(_text_mutants(path, source))


def _text_mutants(path: str, source: str) -> Iterator[Mutant]:
    code = _PROSE.sub(lambda prose: " " * len(prose.group()), source)
    for word in _WORD.finditer(code):
        yield Mutant(path, word.start(), word.end(), _WORDS[word.group()])
    for number in _FOR.finditer(code):
        yield Mutant(path, number.start(), number.end(), str(10 * int(number.group())))


def _killer(folder: Path, mutant: Mutant, source: str, tests: tuple[str, ...]) -> str | None:
    """Return the test that fails, or how the tests ended otherwise; None where all pass. The tests run in a fork."""
    path = folder / mutant.path
    # What Python compiled is recognised by size and second, which two mutants can share.
    Path(cache_from_source(path)).unlink(missing_ok=True)
    path.write_text(mutant.apply(source), "utf-8")
    try:
        child = os.fork()
        if child == 0:
            _run_tests(folder, tests)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", (folder.parent / _OUTPUT).read_text("utf-8"), re.MULTILINE)
        return failed.group(1) if failed else f"exit code {os.waitstatus_to_exitcode(status)}"
    finally:
        path.write_text(source, "utf-8")


def _run_tests(folder: Path, tests: tuple[str, ...]) -> NoReturn:
    """Run tests of the copy, and end this process as pytest would. The libraries stay imported; our modules are imported from the copy."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    signal.alarm(_TIMEOUT_SECONDS)
    output = os.open(folder.parent / _OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.chdir(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] in {"fubd", "tests"}]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    code = 1
    try:
        # pytest warns that it cannot rewrite the assertions of plugins, which are imported already.
        code = pytest.main([*["-n", "0", "-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"], *tests])
    finally:
        os._exit(int(code))


def _rule_killer(folder: Path, mutant: Mutant, source: str) -> str | None:
    """Return the file of cases that a mutated rule fails, or None. Only its own edges and cases are tested; of a recorded series, all."""
    kind, name = re.findall(r"- (alert|record): (\S+)", source[: mutant.begin])[-1]
    groups = yaml.safe_load(mutant.apply(source))["groups"]
    for alert in {edge.alert for edge in EDGES} if kind == "record" else {name}:
        kept = [group | {"rules": [rule for rule in group["rules"] if "record" in rule or rule["alert"] == alert]} for group in groups]
        files = [write_tests(folder, [edge for edge in EDGES if (edge.alert, edge.step) == (alert, step)]) for step in _steps(alert)]
        for path in sorted((_CHECKOUT / "tests/deploy/rules").glob("*.yaml")):
            document = yaml.safe_load(path.read_text("utf-8"))
            cases = [case for case in document["tests"] if case["alert_rule_test"][0]["alertname"] == alert]
            if cases:
                files.append(path.name)
                document |= {"rule_files": [f"{alert}.rules.yaml"], "tests": cases}
                (folder / path.name).write_text(yaml.safe_dump(document), "utf-8")
        rules = yaml.safe_dump({"groups": [group for group in kept if group["rules"]]})
        for rule_file in (f"{alert}.rules.yaml", *(f"{alert}-{step}.rules.yaml" for step in _steps(alert))):
            (folder / rule_file).write_text(rules, "utf-8")
        for file in files:
            if asyncio.run(run("promtool", "test", "rules", file, folder=folder)).code != 0:
                return f"{alert} in {file}"
    return None


def _steps(alert: str) -> list[int]:
    return sorted({edge.step for edge in EDGES if edge.alert == alert})


def _read_sources(folder: Path, target: Target) -> dict[str, str]:
    paths = (path for pattern in target.files for path in sorted(folder.glob(pattern)))
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in paths}


def _measure(name: str, folder: Path, *, sample: int, seed: int, first: int) -> None:
    target = TARGETS[name]
    sources = _read_sources(folder, target)
    mutants = [mutant for path, source in sources.items() for mutant in find_mutants(path, source)]
    drawn = sorted(mutants, key=lambda mutant: mutant.draw(sources[mutant.path], seed))[first:sample]

    def kill(mutant: Mutant, tests: tuple[str, ...]) -> str | None:
        source = sources[mutant.path]
        return _rule_killer(folder, mutant, source) if name == "rules" else _killer(folder, mutant, source, tests)

    killed = 0
    green = set[str]()
    for mutant in drawn:
        source = sources[mutant.path]
        killer = kill(mutant, target.tests_of(mutant.path))
        test = (killer or "").partition("[")[0]
        if "::" in test and test not in green:
            if kill(replace(mutant, end=mutant.begin, text=""), (test,)):
                raise SystemExit(f"{name}: {test} fails without a change, too")
            green.add(test)
        killed += killer is not None
        _report(f"{f'killed by {killer}' if killer else 'SURVIVED'}: {mutant.describe(source)}")
    _report(f"{name}: {killed} of {len(drawn)} killed, drawn from {len(mutants)} with seed {seed}")


def _report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="continue a sample with its mutant of this number, from 0")
    arguments = parser.parse_args()
    # So that the server is stopped, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for module in ("tests.conftest", "fubd.__main__", "hypothesis", "pytest_asyncio", "xdist"):
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as name, embedded.temporary_server() as url:
        os.environ["FUBD_TEST_DATABASE_URL"] = url
        folder = Path(name) / "checkout"
        shutil.copytree(_CHECKOUT, folder, ignore=_IGNORED)
        for target in arguments.targets or TARGETS:
            _measure(target, folder, sample=arguments.sample, seed=arguments.seed, first=arguments.first)


if __name__ == "__main__":
    _main()
