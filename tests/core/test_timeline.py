"""The fold: every example of the contract, and its laws over random histories."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations, product
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fubd.core.history import Change, Entry, History, Stage, Start, State
from fubd.core.timeline import fold
from tests.support.examples import examples

WINDOW = timedelta(minutes=5)
TICK = timedelta(microseconds=1)


def at(text: str) -> datetime:
    """Return an instant of one invented day from `H:M` or `H:M:S`."""
    hour, minute, *second = (int(part) for part in text.split(":"))
    return datetime(2026, 1, 5, hour, minute, second[0] if second else 0, tzinfo=UTC)


def webhook(seq: int, stage: str, when: str) -> Entry:
    """Return the entry that a webhook claims."""
    return Entry(seq, at(when), Stage(stage))


def read(seq: int, stage: str, updated: str, read_at: str, watermark: str | None = None, created: str | None = None) -> State:
    """Return the state that a read claims."""
    return State(seq, at(updated), at(read_at), Stage(stage), at(watermark) if watermark else None, at(created) if created else None)


KNOWN_A = read(1, "A", "08:00", "09:00")


def history(*claims: Entry | State, start: Start | None = None, began: str | None = None) -> History:
    """Fold mixed claims."""
    return fold(
        [claim for claim in claims if isinstance(claim, Entry)],
        [claim for claim in claims if isinstance(claim, State)],
        start,
        window=WINDOW,
        began=at(began) if began else None,
    )


def shown(changes: tuple[Change, ...]) -> list[tuple[str | None, str, datetime, datetime | None]]:
    """Return the part of the changes that is written to their rows."""
    return [(change.stage_from, change.stage.name, change.changed_at, change.changed_after) for change in changes]


def row(stage_from: str | None, stage: str, when: str, after: str | None = None) -> tuple[str | None, str, datetime, datetime | None]:
    """Return a row in the same form."""
    return (stage_from, stage, at(when), at(after) if after else None)


EXAMPLES = {
    "a webhook reports a move": ([KNOWN_A, webhook(2, "B", "10:00")], [row("A", "B", "10:00")]),
    "a poll agrees with a webhook": (
        [KNOWN_A, webhook(2, "B", "10:00:00"), read(3, "B", "10:00:01", "10:30", "10:00")],
        [row("A", "B", "10:00:00")],
    ),
    "a poll alone finds a move": ([KNOWN_A, read(2, "B", "10:12", "10:30", "10:00")], [row("A", "B", "10:12", "10:00")]),
    "a retry dates what a poll found": (
        [KNOWN_A, read(2, "B", "10:12", "10:30", "10:00"), webhook(3, "B", "10:07")],
        [row("A", "B", "10:07")],
    ),
    "a second retry comes to lie before it": (
        [KNOWN_A, read(2, "B", "10:12", "10:30", "10:00"), webhook(3, "B", "10:07"), webhook(4, "C", "10:03")],
        [row("A", "C", "10:03"), row("C", "B", "10:07")],
    ),
    "a return within seconds is real": (
        [KNOWN_A, webhook(2, "B", "10:00:09"), webhook(3, "B", "10:00:00"), webhook(4, "A", "10:00:04")],
        [row("A", "B", "10:00:00"), row("B", "A", "10:00:04"), row("A", "B", "10:00:09")],
    ),
    "an older page changes nothing": (
        [KNOWN_A, webhook(2, "B", "10:00:30"), read(3, "A", "08:30", "10:00:20", "09:58")],
        [row("A", "B", "10:00:30")],
    ),
    "three late webhooks explain one read": (
        [KNOWN_A, read(2, "B", "10:12", "10:30", "10:00"), webhook(3, "B", "10:05"), webhook(4, "C", "10:08"), webhook(5, "B", "10:12")],
        [row("A", "B", "10:05"), row("B", "C", "10:08"), row("C", "B", "10:12")],
    ),
    "a read that merely agreed is evidence too": (
        [KNOWN_A, webhook(2, "B", "10:05"), read(3, "B", "10:12", "10:15", "10:00"), webhook(4, "A", "10:10")],
        [row("A", "B", "10:05"), row("B", "A", "10:10"), row("A", "B", "10:12", "10:10")],
    ),
    "a late retry before the first sight": (
        [read(1, "A", "10:03", "10:05"), webhook(2, "B", "10:00")],
        [row(None, "B", "10:00"), row("B", "A", "10:03", "10:00")],
    ),
    "two events of one change": ([KNOWN_A, webhook(2, "B", "10:00"), webhook(3, "B", "10:00")], [row("A", "B", "10:00")]),
    "a stage reported twice with the step between unseen": (
        [KNOWN_A, webhook(2, "B", "10:00"), webhook(3, "B", "10:40")],
        [row("A", "B", "10:00")],
    ),
    "a stage reported again bounds what came after": (
        [KNOWN_A, webhook(2, "A", "10:20"), read(3, "C", "10:25", "10:30", "10:00")],
        [row("A", "C", "10:25", "10:20")],
    ),
    "a first sight is no change": ([KNOWN_A], []),
    "a webhook about an unknown person": ([webhook(1, "B", "10:00")], [row(None, "B", "10:00")]),
    "the event is dated a little after the read that showed it": (
        [KNOWN_A, read(2, "B", "10:12", "10:13", "10:00"), webhook(3, "B", "10:15")],
        [row("A", "B", "10:15")],
    ),
    "a visit between two reads and a later event": (
        [KNOWN_A, read(2, "B", "10:12", "10:12:30", "10:00"), read(3, "A", "10:13", "10:13:30", "10:12"), webhook(4, "B", "10:14")],
        [row("A", "B", "10:12", "10:00"), row("B", "A", "10:13", "10:12:30"), row("A", "B", "10:14")],
    ),
    "a tie keeps the order of arrival": (
        [KNOWN_A, webhook(2, "B", "10:00"), webhook(3, "C", "10:00")],
        [row("A", "B", "10:00"), ("B", "C", at("10:00") + TICK, None)],
    ),
    "a tie after a polled change keeps the order of arrival": (
        [
            *(KNOWN_A, webhook(2, "C", "10:01"), read(3, "D", "10:20", "10:30", "10:10")),
            *(webhook(4, "C", "10:25:07"), webhook(5, "A", "10:25:07")),
        ],
        [
            row("A", "C", "10:01"),
            row("C", "D", "10:20", "10:10"),
            row("D", "C", "10:25:07"),
            ("C", "A", at("10:25:07") + TICK, None),
        ],
    ),
    "a later read settles a tie": (
        [KNOWN_A, webhook(2, "B", "10:00"), webhook(3, "C", "10:00"), read(4, "B", "10:00", "10:05")],
        [row("A", "C", "10:00"), ("C", "B", at("10:00") + TICK, None)],
    ),
    "a read within the second of a tie settles nothing": (
        [KNOWN_A, webhook(2, "B", "10:00"), webhook(3, "C", "10:00"), read(4, "B", "10:00", "10:00")],
        [row("A", "B", "10:00"), ("B", "C", at("10:00") + TICK, None)],
    ),
    "a read is explained by an event that trails by minutes, with another before it": (
        [KNOWN_A, webhook(2, "C", "10:01"), webhook(3, "B", "10:03:20"), read(4, "B", "10:00", "10:33", "09:58")],
        [row("A", "C", "10:01"), row("C", "B", "10:03:20")],
    ),
    "a read just before a move of the same second": (
        [KNOWN_A, read(2, "A", "10:00", "10:00", "09:58"), webhook(3, "B", "10:00")],
        [row("A", "B", "10:00")],
    ),
}


@pytest.mark.parametrize(("claims", "expected"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_each_example_gives_its_rows(
    claims: list[Entry | State], expected: list[tuple[str | None, str, datetime, datetime | None]]
) -> None:
    """The examples of the contract, and a few that follow from it; entries numbered from zero give the same."""
    first = min((claim.seq for claim in claims if isinstance(claim, Entry)), default=0)
    assert shown(history(*claims).changes) == expected
    assert shown(history(*(replace(claim, seq=claim.seq - first) for claim in claims)).changes) == expected


def test_a_renamed_stage_is_no_move() -> None:
    """The same stage id under a new name makes no change."""
    before = State(1, at("08:00"), at("09:00"), Stage("Hot", 5))
    after = State(2, at("10:00"), at("10:30"), Stage("Very hot", 5), at("09:58"))
    assert history(before, after).changes == ()


def test_a_stage_that_a_webhook_named_before_its_id_was_known_may_be_renamed() -> None:
    """The read that follows shows the id; under another name the stage is still the same."""
    named = State(3, at("10:00"), at("10:05"), Stage("Nurture", 5))
    renamed = State(4, at("10:00"), at("11:00"), Stage("Nurture (old)", 5))
    edited = State(5, at("12:00"), at("12:30"), Stage("Nurture (old)", 5))
    claims: list[Entry | State] = [KNOWN_A, webhook(2, "Nurture", "10:00"), named, renamed, edited]
    for order in permutations(claims):
        assert shown(history(*order).changes) == [row("A", "Nurture", "10:00")]


def test_a_read_corrects_the_id_that_was_guessed_for_a_webhook() -> None:
    """The name had just been given to another stage; moving back to the renamed one is a move."""
    guessed = Entry(2, at("10:00"), Stage("Nurture", 5))
    shown_since = State(3, at("10:00"), at("10:05"), Stage("Nurture", 9))
    back = Entry(4, at("11:00"), Stage("Nurture (old)"))
    shown_back = State(5, at("11:00"), at("11:05"), Stage("Nurture (old)", 5))
    claims: list[Entry | State] = [KNOWN_A, guessed, shown_since, back, shown_back]
    for order in permutations(claims):
        assert shown(history(*order).changes) == [row("A", "Nurture", "10:00"), row("Nurture", "Nurture (old)", "11:00")]


def test_moving_back_from_a_stage_that_took_over_the_name_is_a_move() -> None:
    """A stage is renamed, a new one gets its name, and somebody moves from that one into the renamed one (found by seed 40 of the proof).

    The move into the new one makes no row, because its name is the one that the row before has.
    """
    taken_over = Entry(3, at("11:00"), Stage("Nurture", 56))
    back = Entry(4, at("12:00"), Stage("Nurture (old)"))
    shown_back = State(5, at("12:00"), at("12:05"), Stage("Nurture (old)", 47))
    claims: list[Entry | State] = [KNOWN_A, Entry(2, at("10:00"), Stage("Nurture", 47)), taken_over, back, shown_back]
    for order in permutations(claims):
        assert shown(history(*order).changes) == [row("A", "Nurture", "10:00"), row("Nurture", "Nurture (old)", "12:00")]


def test_a_person_created_after_we_began_to_watch_enters_the_first_stage() -> None:
    """Created and updated within the window: at `created`; further apart: between the two; created before: no change."""
    near = history(read(1, "Lead", "10:02", "10:03", created="10:00"), began="09:00")
    far = history(read(1, "Lead", "10:20", "10:30", created="10:00"), began="09:00")
    older = history(read(1, "Lead", "10:20", "10:30", created="08:00"), began="09:00")
    assert shown(near.changes) == [row(None, "Lead", "10:00")]
    assert shown(far.changes) == [row(None, "Lead", "10:20", "10:00")]
    assert older.changes == ()


def test_a_newcomer_read_within_the_second_of_a_move_was_in_the_stage_before() -> None:
    """Created, read and moved within one second: the read shows the first stage, the webhook the second."""
    found = history(read(1, "Lead", "10:00", "10:00", created="10:00"), webhook(2, "B", "10:00"), began="09:00")
    assert shown(found.changes) == [row(None, "Lead", "10:00"), ("Lead", "B", at("10:00") + TICK, None)]


def test_a_newcomer_moved_within_the_second_is_in_the_stage_that_a_read_shows_then() -> None:
    """Both entries are of one second, and the read of soon after shows the second stage (found by seed 96 of the proof)."""
    later = State(4, at("10:00"), at("10:00"), Stage("B"), None, at("10:00"), answered_at=at("10:00:02"))
    claims: list[Entry | State] = [webhook(2, "Lead", "10:00"), webhook(3, "B", "10:00"), later]
    for order in permutations(claims):
        expected = [row(None, "Lead", "10:00"), ("Lead", "B", at("10:00") + TICK, None)]
        assert shown(history(*order, began="09:00").changes) == expected


def test_a_stage_reported_again_is_a_repetition() -> None:
    """A later entry of the same stage is counted as a repetition, not as another report of the same change."""
    found = history(KNOWN_A, webhook(2, "B", "10:00"), webhook(3, "B", "10:00"), webhook(4, "B", "10:40"))
    assert [(change.claims, change.repeated_by) for change in found.changes] == [((2, 3), (4,))]


# --- Laws -----------------------------------------------------------------------------------------------------------

STAGES = ("A", "B", "C", "D")
ORIGIN = at("10:00")
LAST_SECOND = 3_000

# Seconds close together, so that ties and both edges of the window are frequent.
seconds = st.sampled_from((*range(9), 60, 61, 62, 299, 300, 301, 302, 362, 601, 900, 1_200, 1_201, 2_000, LAST_SECOND))
stages = st.sampled_from([Stage(name) for name in STAGES])
entries = st.builds(lambda stage, second: Entry(0, ORIGIN + timedelta(seconds=second), stage), stages, seconds)


@st.composite
def states(draw: st.DrawFn) -> State:
    """Draw a state, with or without a watermark and an instant of creation before it."""
    updated = ORIGIN + timedelta(seconds=draw(seconds))
    read_at = updated + timedelta(seconds=draw(st.sampled_from((0, 1, 2, 60, 300, 301, 1_200))))
    watermark, created = (
        None if before is None else updated - timedelta(seconds=before)
        for before in (draw(st.sampled_from((None, 1, 2, 60, 300, 600))), draw(st.sampled_from((None, 1, 60, 300, 301, 900))))
    )
    return State(0, updated, read_at, draw(stages), watermark, created)


@st.composite
def claims_of_one_person(draw: st.DrawFn) -> list[Entry | State]:
    """Draw any set of claims: with ties, repetitions and contradictions."""
    number = draw(st.integers(1, 25))
    claims = draw(st.lists(entries | states(), min_size=number, max_size=number))
    return [replace(claim, seq=seq) for seq, claim in enumerate(claims, start=1)]


def folded(claims: list[Entry | State], start: Start | None = None) -> History:
    """Fold what was drawn."""
    return history(*claims, start=start, began="09:50")


@examples(2)
@given(claims_of_one_person(), st.randoms())
def test_the_laws_hold_for_any_claims(claims: list[Entry | State], rng: Random) -> None:
    """The fold is a function of the set of claims, and each law holds for its history. Drawing costs more than folding."""
    found = folded(claims)
    assert folded(rng.sample(claims, len(claims))) == found
    assert_the_chain_holds(found.changes)
    assert_bounds_lie_before_the_change(found.changes)
    assert_nothing_is_invented_and_no_entry_is_lost(claims, found)
    assert_no_state_moves_an_entry(found.changes)


def assert_the_chain_holds(changes: tuple[Change, ...]) -> None:
    """Each change starts from the one before, no two neighbours enter the same stage, instants increase strictly."""
    for before, after in pairwise(changes):
        assert after.stage_from == before.stage.name
        assert after.stage.name != before.stage.name
        assert after.changed_at > before.changed_at


def assert_bounds_lie_before_the_change(changes: tuple[Change, ...]) -> None:
    """`changed_after` is earlier than `changed_at`; a change that an entry dates is exact, one that a state dates follows something."""
    for position, change in enumerate(changes):
        if isinstance(change.dated_by, Entry):
            assert change.changed_after is None
        elif position > 0:
            assert change.changed_after is not None
            assert change.changed_after < change.changed_at


def assert_nothing_is_invented_and_no_entry_is_lost(claims: list[Entry | State], found: History) -> None:
    """Every change is dated by a claim of its own stage; every claim belongs somewhere, once."""
    by_seq = {claim.seq: claim for claim in claims}
    seen = [seq for change in found.changes for seq in (*change.claims, *change.repeated_by)]
    for change in found.changes:
        assert change.dated_by.stage.name == change.stage.name
        assert all(by_seq[seq].stage.name == change.stage.name for seq in (*change.claims, *change.repeated_by))
    assert sorted([*seen, *found.at_start, *found.repeated_at_start]) == sorted(by_seq)


def assert_no_state_moves_an_entry(changes: tuple[Change, ...]) -> None:
    """An entry that makes a change dates it, to within the microseconds that keep a second in order."""
    for change in changes:
        if isinstance(change.dated_by, Entry):
            assert timedelta(0) <= change.changed_at - change.dated_by.at < timedelta(seconds=1)


@st.composite
def claims_around_a_gap(draw: st.DrawFn) -> tuple[list[Entry | State], datetime]:
    """Draw claims of which none is dated within a window after the last change before it, and that window's end."""
    before = draw(claims_of_one_person())
    changes = folded(before).changes
    if not changes or changes[-1].changed_at < _dated(changes[-1].dated_by):
        # There has to be a change to go on from, and not one that is dated back to when the person was created.
        before.append(Entry(len(before) + 1, ORIGIN + timedelta(seconds=LAST_SECOND), Stage("E")))
    last = folded(before).changes[-1].changed_at
    edge = last.replace(microsecond=0) + WINDOW + timedelta(seconds=2)
    # The seqs of both parts alternate: what is dated later may have arrived earlier.
    kept = [replace(claim, seq=2 * claim.seq) for claim in before if _dated(claim) <= last]
    after = [replace(_moved(claim, edge - ORIGIN), seq=2 * claim.seq + 1) for claim in draw(claims_of_one_person())]
    return [*kept, *after], edge


def _moved(claim: Entry | State, by: timedelta) -> Entry | State:
    if isinstance(claim, Entry):
        return replace(claim, at=claim.at + by)
    watermark, created = (None if instant is None else instant + by for instant in (claim.watermark, claim.created))
    return replace(claim, updated=claim.updated + by, read_at=claim.read_at + by, watermark=watermark, created=created)


RETURNED_UNMOVED: list[Entry | State] = [
    read(2, "B", "10:00:00", "10:00:01"),
    read(4, "A", "10:00:00", "10:00:01"),
    read(6, "A", "10:00:00", "10:20:00"),
    webhook(3, "B", "10:05:03"),
]
RETURNED_WITHIN_A_SECOND: list[Entry | State] = [
    webhook(2, "A", "10:00:00"),
    read(4, "B", "10:00:01", "10:00:01"),
    read(6, "A", "10:00:01", "10:00:02"),
    webhook(3, "A", "10:05:03"),
]


@given(claims_around_a_gap())
@example((RETURNED_UNMOVED, at("10:05:03")))
@example((RETURNED_WITHIN_A_SECOND, at("10:05:03")))
def test_folding_in_two_steps_equals_folding_in_one(drawn: tuple[list[Entry | State], datetime]) -> None:
    """Folding from a settled change that lies a window before the rest gives the same changes as folding everything."""
    claims, edge = drawn
    whole = folded(claims).changes
    position = sum(change.changed_at < edge for change in whole)
    while position and _is_before_unmoved(whole[position - 1].changed_at, claims):
        position -= 1
    if position:
        anchor = whole[position - 1]
        later = [claim for claim in claims if _dated(claim) > anchor.changed_at or _agrees(claim, anchor)]
        rest = folded(later, Start(anchor.stage, anchor.changed_at))
        assert shown(rest.changes) == shown(whole[position:])


def _is_before_unmoved(instant: datetime, claims: list[Entry | State]) -> bool:
    """Return whether another stage was first read later with an `updated` from before: such a change is no start (see load_history)."""
    states = [claim for claim in claims if isinstance(claim, State) and claim.updated <= instant]
    return any(
        state.first_seen > instant and any(other.updated == state.updated and other.stage != state.stage for other in states)
        for state in states
    )


def _agrees(claim: Entry | State, anchor: Change) -> bool:
    """Return whether it is a read of the anchor's second that shows its stage: it is loaded too, because it shows until when that held."""
    second = anchor.changed_at.replace(microsecond=0)
    return isinstance(claim, State) and claim.stage == anchor.stage and second <= claim.updated <= anchor.changed_at


def _dated(claim: Entry | State) -> datetime:
    return claim.at if isinstance(claim, Entry) else claim.updated


gaps_and_steps = st.sampled_from(list(product((1, 2, 4, 30, 299, 300, 301, 900), range(1, len(STAGES)))))


@st.composite
def true_histories(draw: st.DrawFn) -> tuple[list[tuple[datetime, str]], list[Entry | State]]:
    """Draw what happened, and what correct sources report of it: every webhook, in any order, and reads at any time."""
    moves: list[tuple[datetime, str]] = [(ORIGIN, "A")]
    number = draw(st.integers(0, 12))
    for gap, step in draw(st.lists(gaps_and_steps, min_size=number, max_size=number)):
        when, stage = moves[-1]
        moves.append((when + timedelta(seconds=gap), STAGES[(STAGES.index(stage) + step) % len(STAGES)]))
    claims: list[Entry | State] = [State(1, ORIGIN, ORIGIN, Stage("A"))]
    seqs = Random(draw(st.integers(0, 1_000_000))).sample(range(2, len(moves) + 1), len(moves) - 1)
    claims += [Entry(seq, when, Stage(stage)) for seq, (when, stage) in zip(seqs, moves[1:], strict=True)]
    for extra in range(draw(st.integers(0, 6))):
        read_at = ORIGIN + timedelta(seconds=draw(st.integers(0, 3_000)))
        when, stage = [move for move in moves if move[0] <= read_at][-1]
        edited = draw(st.integers(0, int((read_at - when).total_seconds())))
        claims.append(State(100 + extra, when + timedelta(seconds=edited), read_at, Stage(stage), when - timedelta(seconds=1)))
    return moves, claims


@given(true_histories())
@examples(3)
def test_correct_sources_give_exactly_what_happened(drawn: tuple[list[tuple[datetime, str]], list[Entry | State]]) -> None:
    """With every webhook received, in any order and among any reads, the rows are exactly what happened."""
    moves, claims = drawn
    expected = [(before[1], after[1], after[0], None) for before, after in pairwise(moves)]
    assert shown(folded(claims).changes) == expected


@given(true_histories(), st.sets(st.integers(2, 13)))
@examples(3)
def test_with_lost_webhooks_every_change_lies_within_its_bounds(
    drawn: tuple[list[tuple[datetime, str]], list[Entry | State]], lost: set[int]
) -> None:
    """With webhooks lost, everything recorded did happen, and within its bounds."""
    moves, claims = drawn
    kept = [claim for claim in claims if not (isinstance(claim, Entry) and claim.seq in lost)]
    for change in folded(kept).changes:
        stays = [
            (entered, moves[position + 1][0] if position + 1 < len(moves) else None)
            for position, (entered, stage) in enumerate(moves)
            if stage == change.stage.name
        ]
        assert any(
            entered <= change.changed_at + timedelta(seconds=1)
            and (left is None or left > (change.changed_after or change.changed_at) - timedelta(seconds=1))
            for entered, left in stays
        )


def test_a_lagging_replica_does_not_undo_an_entry() -> None:
    """A read that contradicts an entry makes no row."""
    stale = replace(KNOWN_A, seq=3, read_at=at("10:01"))
    assert shown(history(KNOWN_A, webhook(2, "B", "10:00"), stale).changes) == [row("A", "B", "10:00")]
