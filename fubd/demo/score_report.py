"""The end of the demo: what became of the changes, in a small table, a line that a script can read, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fubd.simulator import Score

_FINDINGS_SHOWN = 10
_HEADINGS = ("first told by", "captured", "median delay", "95 % within", "slowest")
_WIDTHS = (-13, 10, 14, 13, 11)


def is_clean(score: Score) -> bool:
    """Tell whether nothing was lost, doubled or invented, and each row is right in itself and follows from the one before."""
    wrong = score.wrong_from + score.wrong_time + score.chain_breaks + score.out_of_order
    return score.lost == score.doubled == score.invented == wrong == 0 and score.captured == score.changes


def exit_code(score: Score) -> int:
    """Give 0 for a clean score, else 1."""
    return 0 if is_clean(score) else 1


def last_line(score: Score) -> str:
    """Give the line the demo ends with."""
    return (
        f"score: {score.changes} changes, {score.captured} captured, {score.lost} lost, {score.doubled} doubled, {score.invented} invented"
    )


def table(score: Score) -> list[tuple[str, ...]]:
    """Give the figures by source, the headings first."""
    rows = [
        (source, f"{one.count}", duration(one.median), duration(one.p95), duration(one.worst))
        for source, one in sorted(score.delays.items(), reverse=True)
    ]
    return [_HEADINGS, *rows]


def lines(score: Score) -> Iterator[str]:
    """Give table and remarks as plain lines, all but the last line."""
    for row in table(score):
        yield "  " + _aligned(row)
    yield ""
    yield from remarks(score)


def remarks(score: Score) -> Iterator[str]:
    """Say whether the rows are right in themselves, and what is not."""
    counts = (
        (score.wrong_from, "a wrong stage before"),
        (score.wrong_time, "a wrong time"),
        (score.chain_breaks, "a stage before that is not the row before"),
        (score.out_of_order, "another order than what happened"),
    )
    for count, what in counts:
        if count:
            yield f"{count} rows with {what}"
    for found in score.discrepancies[:_FINDINGS_SHOWN]:
        yield f"{found.kind}: person {found.person_id}, {found.stage}, {found.at:%H:%M:%S}: {found.detail}"
    if is_clean(score):
        yield "Every row has the right stage before it and the right time, and follows from the row before."


def duration(seconds: float) -> str:
    """Write a duration as people say it."""
    return f"{max(seconds, 0) * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _aligned(row: Sequence[str]) -> str:
    return "".join(cell.ljust(-width) if width < 0 else cell.rjust(width) for cell, width in zip(row, _WIDTHS, strict=True))
