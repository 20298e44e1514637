"""Races: their parties, and when they begin."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from homebound.testing import Stress

if TYPE_CHECKING:
    import random


def test_a_race_begins_when_all_parties_are_there():
    """On a busy machine, threads that began while homes were made took all the time."""
    homes = {f"io{number}" for number in range(5)}
    missed: set[str] = set()

    async def task(_: random.Random) -> None:
        await asyncio.sleep(0)

    def thread(_: random.Random) -> None:
        missed.update(homes - {each.name for each in threading.enumerate()})

    with Stress(seconds=0.02) as stress:
        stress.run(task, thread, contexts=5)
    assert not missed
