"""Entries and reads are dated by two clocks of FUB: events trail by seconds, and reads may come from a replica that is seconds behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice, pairwise, permutations
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fubd.core.history import LAG, Entry, Stage, Start, State
from tests.core.test_timeline import KNOWN_A, ORIGIN, TICK, at, history, read, row, shown, webhook


def lagging(seq: int, stage: str, updated: str, answered: str, answered_again: str | None = None) -> State:
    """Return the state that one or two answers claim: either may come from a replica that is behind by `LAG`."""
    last = at(answered_again or answered)
    return replace(
        read(seq, stage, updated, updated),
        read_at=max(at(updated), last - LAG),
        first_read_at=max(at(updated), at(answered)),
        answered_at=last,
    )


EXAMPLES = {
    "two moves whose events trail by three seconds": (
        [KNOWN_A, read(2, "B", "10:00:10", "10:00:11"), read(3, "A", "10:00:12", "10:00:13"), webhook(4, "B", "10:00:13"),
         webhook(5, "A", "10:00:15")],
        [row("A", "B", "10:00:13"), row("B", "A", "10:00:15")],
    ),
    "two moves whose events trail by half a minute": (
        [KNOWN_A, read(2, "B", "10:00:10", "10:00:11"), read(3, "A", "10:00:12", "10:00:13"), webhook(4, "B", "10:00:40"),
         webhook(5, "A", "10:00:42")],
        [row("A", "B", "10:00:40"), row("B", "A", "10:00:42")],
    ),
    "two moves before a read whose events trail": (
        [KNOWN_A, read(2, "C", "10:00:11", "10:20"), webhook(3, "B", "10:00:12"), webhook(4, "C", "10:00:13")],
        [row("A", "B", "10:00:12"), row("B", "C", "10:00:13")],
    ),
    "a poll in the very second of two moves, the first of them not reported": (
        [KNOWN_A, read(2, "B", "10:00", "10:00", "09:58"), webhook(3, "C", "10:00")],
        [row("A", "B", "10:00", "09:58"), ("B", "C", at("10:00") + TICK, None)],
    ),
    "two moves of one second, the second not reported, read within that second and later": (
        [KNOWN_A, webhook(2, "C", "10:00"), read(3, "B", "10:00", "10:00", "09:58"), read(4, "B", "10:00", "10:30", "09:58")],
        [row("A", "C", "10:00"), ("C", "B", at("10:00") + TICK, at("10:00"))],
    ),
    "a change that did not move `updated`": (
        [read(1, "A", "03:00", "10:00"), read(2, "B", "03:00", "10:30", "02:00")],
        [row("A", "B", "10:30", "10:00")],
    ),
    "a change that did not move `updated`, read again later": (
        [read(1, "A", "03:00", "10:00"), replace(read(2, "B", "03:00", "12:00"), first_read_at=at("10:30"))],
        [row("A", "B", "10:30", "10:00")],
    ),
    "an event that trails an unreported return, which a read shows long after": (
        [KNOWN_A, webhook(2, "B", "10:00:07"), read(3, "A", "10:00:05", "11:00")],
        [row("A", "B", "10:00:07"), ("B", "A", at("10:00:07") + TICK, at("10:00:04"))],
    ),
    "a read soon after an event that was dated a little later": (
        [KNOWN_A, webhook(2, "B", "10:00:07"), read(3, "A", "10:00:05", "10:00:30")],
        [row("A", "B", "10:00:07")],
    ),
    "an unreported return that did not move `updated`": (
        [KNOWN_A, webhook(2, "B", "10:00"), read(3, "A", "08:00", "10:20")],
        [row("A", "B", "10:00"), row("B", "A", "10:20", "10:00")],
    ),
    "a read whose `updated` went back is outdated": (
        [read(1, "B", "10:00", "10:01"), webhook(2, "B", "10:00"), read(3, "A", "08:00", "10:20")],
        [row("A", "B", "10:00")],
    ),
    "three events of one second that alternate": (
        [KNOWN_A, webhook(2, "B", "10:00"), webhook(3, "B", "10:00"), webhook(4, "C", "10:00")],
        [row("A", "B", "10:00"), ("B", "C", at("10:00") + TICK, None), ("C", "B", at("10:00") + 2 * TICK, None)],
    ),
    "a tie whose first stage is the stage before": (
        [KNOWN_A, webhook(2, "A", "10:00"), webhook(3, "B", "10:00")],
        [row("A", "B", "10:00"), ("B", "A", at("10:00") + TICK, None)],
    ),
    "a tie that counts the entry after it": (
        [KNOWN_A, webhook(2, "B", "10:00"), webhook(3, "C", "10:00"), webhook(4, "C", "10:05")],
        [row("A", "C", "10:00"), ("C", "B", at("10:00") + TICK, None), row("B", "C", "10:05")],
    ),
    "a tie whose first stage is the stage at first sight, a moment ago": (
        [read(1, "A", "10:00:00", "10:00:01"), webhook(2, "A", "10:03"), webhook(3, "B", "10:03")],
        [row("A", "B", "10:03"), ("B", "A", at("10:03") + TICK, None)],
    ),
    "a second event of a change is no entry of its own": (
        [read(1, "C", "10:00:06", "10:00:06"), lagging(2, "B", "10:00:07", "10:00:07"), webhook(3, "C", "10:00:08"),
         webhook(4, "C", "10:00:08")],
        [row("C", "B", "10:00:07", "10:00:06"), row("B", "C", "10:00:08")],
    ),
    "a replica shows the second stage of a second before the first": (
        [KNOWN_A, lagging(2, "A", "10:00:04", "10:00:05", "10:00:10"), lagging(3, "B", "10:00:04", "10:00:05"),
         webhook(4, "B", "10:00:04")],
        [row("A", "B", "10:00:04"), ("B", "A", at("10:00:04") + TICK, at("10:00:04"))],
    ),
    "a replica shows two stages of a second after the move that followed": (
        [KNOWN_A, webhook(2, "D", "10:00:00"), webhook(3, "E", "10:00:00"), webhook(4, "B", "10:00:02"),
         lagging(5, "D", "10:00:00", "10:00:02"), lagging(6, "E", "10:00:00", "10:00:04")],
        [row("A", "D", "10:00:00"), ("D", "E", at("10:00:00") + TICK, None), row("E", "B", "10:00:02")],
    ),
    "a replica shows two stages of a second the wrong way round, and their events trail": (
        [KNOWN_A, lagging(2, "D", "10:00:03", "10:00:05"), lagging(3, "C", "10:00:03", "10:00:05"), webhook(4, "D", "10:00:04"),
         webhook(5, "C", "10:00:03")],
        [row("A", "C", "10:00:03"), row("C", "D", "10:00:04")],
    ),
    "a tie whose last stage a read shows minutes later, dated a little before": (
        [KNOWN_A, lagging(2, "C", "10:00:41", "10:02"), webhook(3, "C", "10:00:43"), webhook(4, "D", "10:00:43")],
        [row("A", "D", "10:00:43"), ("D", "C", at("10:00:43") + TICK, None)],
    ),
    "an edit and a move of one second, read before and after the move": (
        [lagging(2, "A", "10:00:05", "10:00:05"), replace(lagging(3, "B", "10:00:05", "10:00:06"), watermark=at("09:59")),
         webhook(4, "B", "10:00:05")],
        [("A", "B", at("10:00:05") + TICK, None)],
    ),
    "one spelling of a stage": ([KNOWN_A, webhook(2, "Offers made", "10:00"), read(3, "OFFERS MADE", "10:00", "10:30")],
                                [row("A", "Offers made", "10:00")]),
}  # fmt: skip


@pytest.mark.parametrize(("claims", "expected"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_examples_of_two_clocks(claims: list[Entry | State], expected: list[object]) -> None:
    """Each case folds to its rows, in any order of arrival."""
    for order in islice(permutations(claims), 120):
        assert shown(history(*order).changes) == expected


def test_the_stage_that_a_newcomer_was_created_in_is_entered_though_the_next_events_may_trail() -> None:
    """No event reports it, so the event of a return to it within the lag of events does not stand for it."""
    claims: list[Entry | State] = [
        read(2, "B", "10:00:10", "10:00:11", created="10:00:10"),
        webhook(3, "C", "10:00:12"),
        webhook(4, "B", "10:00:12"),
    ]
    expected = [row(None, "B", "10:00:10"), row("B", "C", "10:00:12"), ("C", "B", at("10:00:12") + TICK, None)]
    for order in permutations(claims):
        assert shown(history(*order, began="09:00").changes) == expected


def test_of_two_reads_of_one_moment_the_one_that_says_more_of_the_stage_before_bounds_the_change() -> None:
    """A webhook's read and a poll's are two claims of one state, and either may arrive first."""
    for one, two in ((2, 3), (3, 2)):
        changes = history(KNOWN_A, read(one, "B", "10:12", "10:13"), read(two, "B", "10:12", "10:13", "10:00")).changes
        assert shown(changes) == [row("A", "B", "10:12", "10:00")]


def test_a_name_used_again_for_a_new_stage_makes_no_row() -> None:
    """Equal names are one stage, whatever their ids; an id joins two different names."""
    renamed = State(1, at("08:00"), at("09:00"), Stage("Nurture 2025", 5))
    reused = State(2, at("10:00"), at("10:30"), Stage("Nurture", 9))
    before = Start(Stage("Nurture", 5), at("07:00"))
    assert history(renamed, start=before).changes == ()
    assert history(renamed, reused, start=before).changes == ()
    elsewhere = Start(Stage("Lead", 1), at("07:00"))
    assert shown(history(reused, start=elsewhere).changes) == [row("Lead", "Nurture", "10:00", "07:00")]


@dataclass(frozen=True)
class _Truth:
    """What happened: the stages entered after the first, and what two lagging sources reported of it."""

    entered: list[str]
    claims: list[Entry | State]
    has_ties: bool


@st.composite
def reported_histories(draw: st.DrawFn) -> _Truth:
    """Draw moves seconds to hours apart, every one reported by an event that trails up to 5 s, and reads from replicas up to 5 s behind."""
    lag = int(LAG.total_seconds())
    moves = [(0, "A")]
    for gap in draw(st.lists(st.sampled_from((1, 2, 3, 4, 6, 30, 299, 300, 301, 900, 7_200)), min_size=1, max_size=8)):
        moves.append((moves[-1][0] + gap, draw(st.sampled_from([name for name in "ABC" if name != moves[-1][1]]))))
    dates: list[int] = []
    for when, _ in moves[1:]:
        dates.append(max([when + draw(st.integers(0, lag)), *dates[-1:]]))
    claims: list[Entry | State] = [State(0, ORIGIN, ORIGIN, Stage("A"))]
    claims += [Entry(0, ORIGIN + timedelta(seconds=date), Stage(name)) for date, (_, name) in zip(dates, moves[1:], strict=True)]
    for read_at in draw(st.lists(st.integers(0, moves[-1][0] + 20), max_size=8)):
        shows = max(0, read_at - draw(st.integers(0, lag)))
        when, name = [move for move in moves if move[0] <= shows][-1]
        updated = draw(st.sampled_from((when, shows)))
        claims.append(State(0, ORIGIN + timedelta(seconds=updated), ORIGIN + timedelta(seconds=max(updated, read_at - lag)), Stage(name)))
    order = draw(st.permutations(range(len(claims))))
    numbered = [replace(claim, seq=seq) for seq, claim in zip(order, claims, strict=True)]
    return _Truth([name for _, name in moves[1:]], numbered, len(set(dates)) < len(dates))


@given(reported_histories())
def test_lags_of_both_clocks_make_no_row(truth: _Truth) -> None:
    """When every move was reported, the rows are the moves, each dated by its event, whatever was read and in whatever order."""
    changes = history(*truth.claims).changes
    entered = [change.stage.name for change in changes]
    if truth.has_ties:
        assert len(entered) <= len(truth.entered)
    else:
        assert entered == truth.entered
    assert all(isinstance(change.dated_by, Entry) for change in changes)
    assert all(one.stage.name == two.stage_from for one, two in pairwise(changes))


@given(st.lists(st.sampled_from("ABCD"), min_size=2, max_size=7), st.sampled_from("ABC"), st.one_of(st.none(), st.sampled_from("ABC")))
def test_a_tie_leaves_as_few_equal_neighbours_as_any_order(names: list[str], before: str, after: str | None) -> None:
    """Compared with every order that the entries of one second can stand in."""
    claims = [Entry(seq, at("10:00"), Stage(name)) for seq, name in enumerate(names)]
    following = [] if after is None else [Entry(99, at("11:00"), Stage(after))]
    changes = history(*claims, *following, start=Start(Stage(before), at("09:00"))).changes
    orders = ((before, *order, *([after] if after else [])) for order in set(permutations(names)))
    fewest = min(sum(one == two for one, two in pairwise(order)) for order in orders)
    assert len(names) + len(following) - len(changes) == fewest


@given(st.lists(st.lists(st.sampled_from("ABC"), min_size=1, max_size=4), min_size=2, max_size=3), st.sampled_from("ABC"))
@example([["C", "C", "L"], ["N", "C", "N", "C"]], "D")
def test_ties_of_successive_seconds_leave_as_few_equal_neighbours_as_any_orders(seconds: list[list[str]], before: str) -> None:
    """The order of one second may be decided by those of the seconds after it."""
    events = [(second, name) for second, names in enumerate(seconds) for name in names]
    claims = [Entry(seq, ORIGIN + timedelta(seconds=second), Stage(name)) for seq, (second, name) in enumerate(events)]
    changes = history(*claims, start=Start(Stage(before), at("09:00"))).changes
    # The fewest for each stage that the seconds so far can end in.
    fewest = {before: 0}
    for names in seconds:
        orders = [
            (order[-1], swallowed + sum(one == two for one, two in pairwise((stage, *order))))
            for stage, swallowed in fewest.items()
            for order in set(permutations(names))
        ]
        fewest = {last: min(swallowed for stage, swallowed in orders if stage == last) for last, _ in orders}
    assert len(claims) - len(changes) == min(fewest.values())


def test_the_order_of_many_entries_of_one_second_ends_in_the_stage_that_is_read_later() -> None:
    """They are too many to be tried in every order."""
    claims: list[Entry | State] = [webhook(seq, name, "10:00:14") for seq, name in enumerate("TOLUUL", start=2)]
    changes = history(KNOWN_A, *claims, lagging(8, "L", "10:00:11", "10:30")).changes
    assert len(changes) == len(claims)
    assert changes[-1].stage.name == "L"


def test_two_hundred_entries_of_one_second_are_ordered() -> None:
    """A large tie is bounded work, and swallows no entry that can be kept."""
    names = ["B"] * 100 + ["C"] * 100
    Random(1).shuffle(names)
    changes = history(
        *(Entry(seq, at("10:00"), Stage(name)) for seq, name in enumerate(names)), start=Start(Stage("A"), at("09:00"))
    ).changes
    assert len(changes) == len(names)
