"""The end of the demo: a small table, a line that scripts can read, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fubd.simulator import Score

_DISCREPANCIES_SHOWN = 10
_HEADINGS = ("first seen by", "captured", "median delay", "95 % within", "slowest")
_WIDTHS = (-13, 10, 14, 13, 11)


def is_clean(score: Score) -> bool:
    """Return whether no change is lost, doubled or invented, and every row is correct and follows from the one before."""
    wrong = score.wrong_from + score.wrong_time + score.chain_breaks + score.out_of_order
    return score.lost == score.doubled == score.invented == wrong == 0 and score.captured == score.changes


def exit_code(score: Score) -> int:
    """Return 0 for a clean score, else 1."""
    return 0 if is_clean(score) else 1


def last_line(score: Score) -> str:
    """Return the last line of the demo."""
    return (
        f"score: {score.changes} changes, {score.captured} captured, {score.lost} lost, {score.doubled} doubled, {score.invented} invented"
    )


def table(score: Score) -> list[tuple[str, ...]]:
    """Return the capture delays by source, headings first."""
    rows = [
        (source, f"{one.count}", duration(one.median), duration(one.p95), duration(one.worst))
        for source, one in sorted(score.delays.items(), reverse=True)
    ]
    return [_HEADINGS, *rows]


def lines(score: Score) -> Iterator[str]:
    """Yield table and remarks as plain lines, without the last line."""
    for row in table(score):
        yield "  " + _aligned(row)
    yield ""
    yield from remarks(score)


def remarks(score: Score) -> Iterator[str]:
    """Yield what is wrong with the rows, or that all are correct."""
    counts = (
        (score.wrong_from, "a wrong previous stage"),
        (score.wrong_time, "a wrong time"),
        (score.chain_breaks, "a previous stage that differs from the row before"),
        (score.out_of_order, "the wrong order"),
    )
    for count, what in counts:
        if count:
            yield f"{count} rows with {what}"
    for found in score.discrepancies[:_DISCREPANCIES_SHOWN]:
        yield f"{found.kind}: person {found.person_id}, {found.stage}, {found.at:%H:%M:%S}: {found.detail}"
    if is_clean(score):
        yield "Every row has the right previous stage and the right time, and follows from the row before it."


def duration(seconds: float) -> str:
    """Format a duration for people."""
    return f"{max(seconds, 0) * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _aligned(row: Sequence[str]) -> str:
    return "".join(cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, width in zip(row, _WIDTHS, strict=True))
