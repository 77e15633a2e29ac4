from __future__ import annotations

from fubd.simulator import Score
from tests.simulator.collectors import CAREFUL, FUBD, figures
from tests.support.databases import Databases

CHANGES = 400


async def test_fubd_scores_as_well_as_the_careful_collector(databases: Databases) -> None:
    """With the same bytes as the old collectors, fubd's table is perfect, also on days when webhooks are lost; no more could be known."""
    async with databases.migrated() as one, databases.migrated() as other:
        scores: dict[str, Score] = await figures(CHANGES, databases=(one, other))
    for ours, careful in ((FUBD, CAREFUL.rule), (f"{FUBD}, webhooks dying", f"{CAREFUL.rule}, webhooks dying")):
        assert scores[ours].is_perfect, scores[ours].discrepancies[:5]
        assert scores[ours].captured == scores[careful].captured > CHANGES / 2
    assert scores[f"{FUBD}, webhooks dying"].delays["polling"].count > 10
