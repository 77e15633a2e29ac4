"""Mutation testing: python -m tests.proofs.mutation [core|ingest|poller|sql|rules ...] [--sample N] [--seed N].

Each mutant is a copy of the checkout with one small change; the tests that concern the changed file must then fail. The program prints each
mutant with what became of it, and the share that was killed. A sample is drawn with a seed, so that it can be repeated.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from typing_extensions import override

_CHECKOUT = Path(__file__).parents[2]
_IGNORED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
_TIMEOUT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is mutated, and the tests that must notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "core": Target(("fubd/core/*.py",), ("tests/core",)),
    "ingest": Target(("fubd/ingest.py", "fubd/pending.py"), ("tests/test_ingest.py", "tests/test_pending.py")),
    "poller": Target(("fubd/poller/*.py",), ("tests/poller",)),
    "sql": Target(
        ("fubd/sql/recording/*.sql", "fubd/sql/state/*.sql", "fubd/sql/forgetting/*.sql"), ("tests/store", "tests/test_retention.py")
    ),
    "rules": Target(("deploy/prometheus/rules.yaml",), ("tests/deploy/test_rules.py",)),
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
    for line in re.finditer(r"^.*$", source, re.MULTILINE):
        if line.group().lstrip().startswith(("--", "#", "summary:", "description:")):
            continue
        for word in _WORD.finditer(line.group()):
            yield Mutant(path, line.start() + word.start(), line.start() + word.end(), _WORDS[word.group()])
        for number in _FOR.finditer(line.group()):
            yield Mutant(path, line.start() + number.start(), line.start() + number.end(), str(10 * int(number.group())))


async def _is_killed(folder: Path, mutant: Mutant, source: str, tests: tuple[str, ...]) -> bool:
    """Return whether a test fails, or does not end."""
    (folder / mutant.path).write_text(mutant.apply(source), "utf-8")
    arguments = ("-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider", *tests)
    pytest = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        return await asyncio.wait_for(pytest.wait(), _TIMEOUT_SECONDS) != 0
    except TimeoutError:
        # An interrupt lets it stop the servers that it started.
        pytest.send_signal(signal.SIGINT)
        await pytest.wait()
        return True
    finally:
        (folder / mutant.path).write_text(source, "utf-8")


def _read_sources(folder: Path, target: Target) -> dict[str, str]:
    paths = (path for pattern in target.files for path in sorted(folder.glob(pattern)))
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in paths}


async def _measure(name: str, folder: Path, *, sample: int, seed: int) -> None:
    target = TARGETS[name]
    sources = _read_sources(folder, target)
    mutants = [mutant for path, source in sources.items() for mutant in find_mutants(path, source)]
    drawn = Random(seed).sample(mutants, min(sample, len(mutants)))
    killed = 0
    for mutant in drawn:
        is_killed = await _is_killed(folder, mutant, sources[mutant.path], target.tests)
        killed += is_killed
        _report(f"{'killed' if is_killed else 'SURVIVED'}: {mutant.describe(sources[mutant.path])}")
    _report(f"{name}: {killed} of {len(drawn)} killed, drawn from {len(mutants)} with seed {seed}")


def _report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkout"
        shutil.copytree(_CHECKOUT, folder, ignore=_IGNORED)
        for target in arguments.targets or TARGETS:
            asyncio.run(_measure(target, folder, sample=arguments.sample, seed=arguments.seed))


if __name__ == "__main__":
    _main()
