"""Adopting a table on a connection or a pool of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import asyncpg

from fubd.store import Pool, adoption
from fubd.store.adoption import AdoptionPlan
from fubd.store.dsn import parse


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection of the test's own."""
    connection = await asyncpg.connect(**replace(parse(url), application_name="test").connect_arguments())
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def pooled(url: str) -> AsyncIterator[Pool]:
    """Open a pool like the command's."""
    pool = Pool(parse(url), size=1)
    try:
        yield pool
    finally:
        await pool.close()


async def planned(pool: Pool) -> AdoptionPlan:
    """Return the plan; there must be something to adopt."""
    plan = await adoption.plan_adoption(pool, {"campaign_id": "customCampaignID"})
    assert plan is not None
    return plan


async def adopt(pool: Pool) -> adoption.Adopted:
    """Adopt the table as planned."""
    return await adoption.adopt(pool, {"campaign_id": "customCampaignID"}, plan=await planned(pool))
