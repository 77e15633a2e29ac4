"""The order of the entries of one second, which no instant tells (rule 1 of `timeline`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, permutations, product

from fubd.core.history import Entry, Stage
from fubd.core.reads import second_of

# Up to so many entries of one second are tried in every order, if these are not too many.
_FEW = 6
_FEW_CHOICES = 100


def order_ties(moves: list[Entry], before: Stage | None, cost: Callable[[Sequence[Entry]], tuple[int, ...]]) -> list[Entry]:
    """Order the entries of each second: a first order from the entries alone, then the one that agrees best with what was read.

    `before`: the stage before the first entry. `cost`: how many of entries in this order have no change of their own, those not counted
    that repeat one of their second; then what else speaks against it.
    """
    groups = _ties(moves) if len(moves) > 1 else []
    for neighbours in _neighbouring(groups):
        first, end = neighbours[0].start, neighbours[-1].stop
        earlier = moves[first - 1].stage if first else before
        after = moves[end].stage if end < len(moves) else None
        choices = [_first_orders(moves[group], earlier, after) for group in neighbours]
        moves[first:end] = _with_fewest_repeats(choices, earlier, after)
    # The order of one second may be decided by that of the next: neighbours are tried together where they are few.
    for together in (*pairwise(groups), *((group,) for group in groups)):
        orders = list(product(*(list(_orders(moves[group])) for group in together)))
        if len(together) == 1 or len(orders) <= _FEW_CHOICES:
            trials = [_with_orders(moves, together, chosen) for chosen in orders]
            costs = [_with_repeats(cost(trial), trial, together) for trial in trials]
            moves = trials[costs.index(min(costs))]
    return moves


def _with_repeats(cost: tuple[int, ...], moves: Sequence[Entry], groups: Iterable[slice]) -> tuple[int, ...]:
    return cost[0] + sum(_repeats(moves[group]) for group in groups), *cost[1:]


def _repeats(moves: Sequence[Entry]) -> int:
    return sum(one.stage.is_same(two.stage) for one, two in pairwise(moves))


def _neighbouring(groups: Iterable[slice]) -> list[list[slice]]:
    """Return the groups, together where one follows directly upon another."""
    together: list[list[slice]] = []
    for group in groups:
        if together and together[-1][-1].stop == group.start:
            together[-1].append(group)
        else:
            together.append([group])
    return together


def _first_orders(group: list[Entry], before: Stage | None, after: Stage | None) -> list[list[Entry]]:
    """Return the orders among which the fewest equal neighbours are looked for. Rows by other writers keep their places."""
    if _has_foreign(group):
        return [group]
    few = _distinct_orders(group)
    return few or [_alternate(group, before, after), *_orders(group)]


def _with_fewest_repeats(choices: Sequence[Sequence[list[Entry]]], before: Stage | None, after: Stage | None) -> list[Entry]:
    """Return one order for each of successive seconds, so that the fewest equal neighbours remain, and among those the first."""
    # For each order of a second the equal neighbours from there to the end, and which order follows.
    tails: list[list[tuple[int, int]]] = []
    for orders, following in reversed(list(zip(choices, [*choices[1:], []], strict=True))):
        costs = [_tail(order, after, following, tails[-1] if tails else []) for order in orders]
        tails.append(costs)
    tails.reverse()
    number = min(range(len(choices[0])), key=lambda first: tails[0][first][0] + _is_same(before, choices[0][first][0].stage))
    ordered: list[Entry] = []
    for orders, costs in zip(choices, tails, strict=True):
        ordered += orders[number]
        number = costs[number][1]
    return ordered


def _tail(
    order: Sequence[Entry], after: Stage | None, following: Sequence[Sequence[Entry]], tails: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Return how many equal neighbours there are from this order to the end at least, and with which order after it."""
    last, repeats = order[-1].stage, _repeats(order)
    if not following:
        return repeats + _is_same(after, last), 0
    return min((repeats + _is_same(last, next_order[0].stage) + tails[number][0], number) for number, next_order in enumerate(following))


def _is_same(one: Stage | None, two: Stage) -> bool:
    return one is not None and one.is_same(two)


def _with_orders(moves: Sequence[Entry], groups: Sequence[slice], orders: Sequence[list[Entry]]) -> list[Entry]:
    ordered = list(moves)
    for group, order in zip(groups, orders, strict=True):
        ordered[group] = order
    return ordered


def _ties(moves: Sequence[Entry]) -> list[slice]:
    """Return where entries of different stages share a second."""
    ends = [number for number in range(1, len(moves)) if second_of(moves[number].at) != second_of(moves[number - 1].at)]
    groups = [slice(first, end) for first, end in pairwise([0, *ends, len(moves)])]
    return [group for group in groups if any(not move.stage.is_same(moves[group.start].stage) for move in moves[group])]


def _has_foreign(group: Sequence[Entry]) -> bool:
    """Return whether rows by other writers are among them, which keep their places."""
    return any(move.seq < 0 for move in group)


def _orders(group: list[Entry]) -> Iterable[list[Entry]]:
    """Return the orders worth trying, the one that holds if none is better first.

    All of a few entries, by arrival; else the first order, and one that begins and one that ends in each stage.
    """
    if not _has_foreign(group) and (few := _distinct_orders(group)):
        yield from few
        return
    yield group
    if _has_foreign(group):
        for own in (move for move in group if move.seq >= 0):
            yield [*(move for move in group if move is not own), own]
        return
    stages = {move.stage.name: move.stage for move in group}
    for stage in stages.values():
        yield _alternate(group, stage, None)
        last = next(move for move in reversed(group) if move.stage.is_same(stage))
        yield [*_alternate([move for move in group if move is not last], None, stage), last]


def _distinct_orders(group: Sequence[Entry]) -> list[list[Entry]]:
    """Return every order of the stages of a few entries, by arrival; none if they are more. Those of one stage stay in order of arrival."""
    if len(group) > _FEW:
        return []
    orders: dict[tuple[str, ...], list[Entry]] = {}
    for order in permutations(sorted(group, key=lambda move: move.seq)):
        orders.setdefault(tuple(move.stage.name.casefold() for move in order), list(order))
    return list(orders.values()) if len(orders) <= _FEW_CHOICES else []


def _alternate(group: Sequence[Entry], before: Stage | None, after: Stage | None) -> list[Entry]:
    """Return the first order by arrival with the fewest equal neighbours.

    The next is the first to arrive of another stage than the one before, unless one stage is so frequent that it must come now.
    """
    waiting, ordered, stage = list(group), list[Entry](), before
    while waiting:
        others = [move for move in waiting if stage is None or not move.stage.is_same(stage)]
        urgent = next((move for move in others if _must_come_now(move.stage, waiting, after)), None)
        move = urgent or (others[0] if others else waiting[0])
        waiting.remove(move)
        ordered.append(move)
        stage = move.stage
    return ordered


def _must_come_now(stage: Stage, waiting: Sequence[Entry], after: Stage | None) -> bool:
    """Return whether a stage is so frequent among what follows that each further step without it costs an equal neighbour."""
    is_next = _is_same(after, stage)
    return 2 * (sum(move.stage.is_same(stage) for move in waiting) + is_next) > len(waiting) + is_next
