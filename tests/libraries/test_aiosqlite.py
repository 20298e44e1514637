"""aiosqlite: a database in a thread of its own, used from several homes and synchronously."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable

    from homebound import IOThread

    Run = Callable[..., Any]

aiosqlite = pytest.importorskip("aiosqlite")


async def numbers(base: Any) -> list[int]:
    async with base.execute("select n from numbers order by n") as cursor:
        return [row[0] async for row in cursor]


async def make(base: Any) -> None:
    await base.execute("create table numbers (n integer)")
    await base.executemany("insert into numbers values (?)", [(n,) for n in range(5)])
    await base.commit()


def test_queries(run: Run):
    async def main() -> None:
        async with aiosqlite.connect(":memory:") as base:
            await make(base)
            results = await asyncio.gather(*(numbers(base) for _ in range(10)))
            assert results == [list(range(5))] * 10
            with pytest.raises(aiosqlite.OperationalError):
                await base.execute("select nothing from nowhere")

    run(main())


def test_one_connection_from_two_homes(run: Run, io: IOThread):
    async def main() -> None:
        async with aiosqlite.connect(":memory:") as base:  # a future belongs to its caller
            await make(base)
            results = await asyncio.gather(numbers(base), io.spawn(numbers(base)))
            assert results == [list(range(5))] * 2

    run(main())


def test_block_on(run: Run):
    async def main() -> None:
        async with aiosqlite.connect(":memory:") as base:
            homebound.block_on(make(base))
            assert homebound.block_on(numbers(base)) == list(range(5))

    run(main())
