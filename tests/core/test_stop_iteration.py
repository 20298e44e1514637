"""StopIteration raised by a call or a coroutine: what waits for it gets an error that says so."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable

STOPS = [
    pytest.param(lambda _pool: homebound.to_worker(next, iter(())), id="to_worker"),
    pytest.param(lambda pool: homebound.run_in(pool, next, iter(())), id="run_in"),
]


@pytest.mark.parametrize("call", STOPS)
@pytest.mark.parametrize("make", [homebound.WorkerPool, concurrent.futures.ThreadPoolExecutor])
def test_a_call_in_a_worker(call: Callable[[Any], Any], make: Callable[[], Any]):
    """StopIteration cannot be raised into a coroutine: Python turns it into RuntimeError."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="raised StopIteration") as caught:
            async with asyncio.timeout(10):
                await call(pool)
        assert isinstance(caught.value.__cause__, StopIteration)
        assert await homebound.to_worker(sum, [1, 2]) == 3

    with make() as pool:
        homebound.run(main())


def test_a_coroutine_that_block_on_runs(io: homebound.IOThread):
    async def stops() -> None:
        raise StopIteration

    def check(context: homebound.AioContext | None = None) -> None:
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            homebound.block_on(stops(), context)

    async def main() -> None:
        check()
        check(io.context)
        await asyncio.to_thread(check)

    homebound.run(main())
    check(io.context)


def test_stop_iteration_for_a_future():
    """asyncio's own refusal, on a loop of ours."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        try:
            future.set_exception(StopIteration())
        except TypeError as error:
            assert "StopIteration" in str(error)  # noqa: PT017  (since 3.12 it is not raised here)
            return
        with pytest.raises(RuntimeError, match="StopIteration"):
            await future

    homebound.run(main())
