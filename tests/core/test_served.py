"""block_on in a thread that makes a call for a home runs in that home."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextError, IOThread, WorkerPool, block_on, run_in, to_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call = Callable[[Callable[[], Any]], Awaitable[Any]]


async def where() -> str:
    await asyncio.sleep(0)
    return homebound.running_context().name


def ask() -> str:
    """A blocking function that needs a coroutine's answer, as a `def` endpoint does."""
    assert homebound.current_context() is None
    return block_on(where())


def _in_default_executor(fn: Callable[[], Any]) -> Awaitable[Any]:
    return asyncio.get_running_loop().run_in_executor(None, fn)


async def _in_pool_of_ours(fn: Callable[[], Any]) -> Any:
    with WorkerPool() as pool:
        return await run_in(pool, fn)


async def _in_thread_pool(fn: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor() as pool:
        return await run_in(pool, fn)


async def _in_named_executor(fn: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor() as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, fn)


async def _in_default_workers(fn: Callable[[], Any]) -> Any:
    asyncio.get_running_loop().set_default_executor(WorkerPool())
    return await asyncio.to_thread(fn)


CALLS: dict[str, Call] = {
    "asyncio.to_thread": asyncio.to_thread,
    "run_in_executor(None)": _in_default_executor,
    "run_in_executor(pool)": _in_named_executor,
    "a WorkerPool as default": _in_default_workers,
    "to_worker": to_worker,
    "run_in(WorkerPool)": _in_pool_of_ours,
    "run_in(ThreadPoolExecutor)": _in_thread_pool,
}


@pytest.mark.parametrize("name", CALLS)
def test_it_runs_in_the_home_that_waits(name: str):
    async def main() -> None:
        with IOThread("app") as io:
            assert await io.spawn(_outer(CALLS[name])) == "app"
            assert await CALLS[name](ask) == "main"

    async def _outer(call: Call) -> Any:
        return await call(ask)

    homebound.run(main())


@pytest.mark.parametrize("name", CALLS)
def test_without_a_main_context(name: str):
    async def outer() -> Any:
        return await CALLS[name](ask)

    with IOThread("app") as io:
        assert block_on(outer(), io) == "app"


def _uvloop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    return loop


FOREIGN = {name: call for name, call in CALLS.items() if name != "a WorkerPool as default"}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, _uvloop])
def test_a_foreign_loop_in_an_io_thread(name: str, loop_factory: Any):
    async def outer() -> Any:
        return await CALLS[name](ask)

    async def main() -> None:
        async with IOThread("guest", loop_factory=loop_factory) as io:
            assert await io.spawn(outer()) == "guest"

    homebound.run(main())


def test_a_foreign_loop_hands_calls_for_processes_over_as_they_are():
    async def outer() -> Any:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return await loop.run_in_executor(pool, os.getpid)

    with IOThread("stock", loop_factory=asyncio.new_event_loop) as io:
        assert block_on(io.spawn(outer())) != os.getpid()


def test_it_is_the_home_at_the_time_of_the_call(io: IOThread):
    async def main() -> None:
        assert await asyncio.to_thread(ask) == "main"
        async with homebound.on(io):
            assert await asyncio.to_thread(ask) == "io"
        assert await asyncio.to_thread(ask) == "main"

    homebound.run(main())


def test_a_named_context_and_a_tasks_home_come_first(io: IOThread, io2: IOThread):
    def both() -> tuple[str, str]:
        return block_on(where(), io2), block_on(homebound.Task(where(), home=io2.context))

    async def main() -> tuple[str, str]:
        return await asyncio.to_thread(both)

    assert block_on(main(), io) == ("io2", "io2")


def test_a_thread_that_is_a_home_uses_its_own(io: IOThread):
    def loop_of_its_own() -> str:
        async def inner() -> str:
            return ask_at_home()

        def ask_at_home() -> str:
            return block_on(where())

        with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
            return runner.run(inner())

    async def main() -> str:
        return await asyncio.to_thread(loop_of_its_own)

    assert block_on(main(), io) not in {"io", "main"}


def test_the_big_lock_comes_first(io: IOThread):
    def with_the_lock() -> str:
        with homebound.big_lock:
            return block_on(where())

    async def main() -> str:
        return await io.spawn(elsewhere())

    async def elsewhere() -> str:
        return await asyncio.to_thread(with_the_lock)

    assert homebound.run(main()) == "main"


def test_nothing_stays_after_the_call():
    with ThreadPoolExecutor(1) as pool:

        async def main() -> str:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, ask)

        with IOThread("app") as io:
            assert block_on(main(), io) == "app"
        with pytest.raises(ContextError, match="there is no context to run it in"):
            pool.submit(ask).result()


def test_a_home_that_has_ended_is_ignored():
    ended = threading.Event()

    def late() -> str:
        ended.wait()
        return ask()

    with ThreadPoolExecutor(1) as pool:

        async def begin() -> concurrent.futures.Future[str]:
            began = threading.Event()
            outcome: concurrent.futures.Future[str] = concurrent.futures.Future()

            def call() -> None:
                began.set()
                try:
                    outcome.set_result(late())
                except BaseException as error:  # noqa: BLE001
                    outcome.set_exception(error)

            asyncio.get_running_loop().run_in_executor(pool, call)
            await asyncio.sleep(0)
            began.wait()
            return outcome

        with IOThread("app") as io:
            outcome = block_on(begin(), io)

        async def main() -> str:
            ended.set()
            return await asyncio.wrap_future(outcome)

        assert homebound.run(main()) == "main"


@pytest.mark.usefixtures("collected_between_tests")
def test_calls_for_processes_go_as_they_are():
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return [await loop.run_in_executor(pool, os.getpid), await run_in(pool, os.getpid)]

    assert os.getpid() not in homebound.run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_an_async_function_is_refused_as_before(debug: bool):  # noqa: FBT001
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        if debug:
            with pytest.raises(TypeError, match="coroutines cannot be used"):
                await loop.run_in_executor(None, where)

    homebound.run(main(), debug=debug)


def test_errors_cross():
    def fail() -> None:
        async def inner() -> None:
            await asyncio.sleep(0)
            message = "from the home"
            raise LookupError(message)

        block_on(inner())

    async def main() -> None:
        with pytest.raises(LookupError, match="from the home"):
            await asyncio.to_thread(fail)

    with IOThread("app") as io:
        block_on(main(), io)
