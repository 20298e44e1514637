"""Tests of run_in that hold for each kind of pool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, run_in, to_worker

if TYPE_CHECKING:
    from concurrent.futures import Executor


def pool_outlives_a_home(pool: Executor, held: Any) -> None:
    """End a home while the pool works for its task: only the task is cancelled."""

    async def main() -> None:
        io = IOThread("brief")
        io.start()
        task = io.spawn(run_in(pool, *held.job))
        await held.begun()
        await to_worker(io.stop)
        with pytest.raises(asyncio.CancelledError):
            await task
        held.end()  # its completion finds no task
        assert await run_in(pool, sum, [1, 2]) == 3

    homebound.run(main())
