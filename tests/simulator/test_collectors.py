from __future__ import annotations

import asyncio

import pytest

from fubd.simulator import Score
from tests.simulator.collectors import CAREFUL, HABITS, NEVER_POLLS, Habit, figures, table

CHANGES = 600

REVEALED_BY = {
    "takes only the first id of an event": "lost_shown",
    "follows the event's uri as it is": "lost_shown",
    "drops repeats within 30 seconds": "lost_shown",
    "joins the same stage within 5 minutes": "lost_shown",
    "re-reads the stage instead of taking the event's": "lost_shown",
    "stamps the time of receipt": "wrong_time",
    "records every event it gets": "doubled",
    "answers 200 before saving": "lost_acknowledged",
    "never polls": "lost_shown",
}


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    """Return the score of every habit after some hundred changes."""
    return asyncio.run(figures(CHANGES))


def test_keeping_all_evidence_is_perfect(scores: dict[str, Score]) -> None:
    """Keeping all evidence loses, doubles and invents nothing, so the other scores show only the habits."""
    for rule in (CAREFUL.rule, f"{CAREFUL.rule}, webhooks dying"):
        assert scores[rule].is_perfect, scores[rule].discrepancies[:5]
        assert scores[rule].changes >= CHANGES
    assert scores[CAREFUL.rule].lost == 0
    assert scores[f"{CAREFUL.rule}, webhooks dying"].delays["polling"].count > 20


@pytest.mark.parametrize("habit", [*HABITS, NEVER_POLLS], ids=lambda habit: habit.rule)
def test_each_habit_is_revealed(scores: dict[str, Score], habit: Habit) -> None:
    """Each broken habit is revealed by the count that names its fault."""
    assert getattr(scores[habit.rule], REVEALED_BY[habit.rule]) > 0
    assert not scores[habit.rule].is_perfect


def test_the_table_for_the_readme(scores: dict[str, Score]) -> None:
    """The table has one line per habit, with figures per 10,000 changes."""
    lines = table(scores).splitlines()
    assert len(lines) == 2 + len(HABITS) + 3
    assert lines[2] == f"| {CAREFUL.rule} | 0 | 0 | 0 | 0 |"
