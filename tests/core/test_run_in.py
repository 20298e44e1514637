"""run_in: a call through any executor, whose completion wakes the task at its home.

The jobs are functions of the standard library, which a new process or interpreter can import.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import multiprocessing
import os
import pickle
import sys
import threading
import traceback
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, WorkerPool, block_on, current_context, run_in, to_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    InThread = Callable[..., Future[Any]]
    Make = Callable[[int], Executor]
    Gates = Callable[[], Any]


# Without a GIL a semaphore released by another thread is finalised between any two steps of its
# own, also inside a call to the tracker, whatever the collector does. It is unlinked by then.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ResourceTracker called reentrantly:UserWarning"),
    pytest.mark.usefixtures("collected_between_tests"),
]


def workers(most: int) -> Executor:
    return WorkerPool(max_threads=most)


def threads(most: int) -> Executor:
    return ThreadPoolExecutor(most)


def processes(most: int) -> Executor:
    return ProcessPoolExecutor(most, mp_context=multiprocessing.get_context("spawn"))


def interpreters(most: int) -> Executor:
    pools: Any = concurrent.futures  # typed as Python 3.11 has it
    pool: Executor = pools.InterpreterPoolExecutor(most)
    return pool


since_3_14 = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="Python has pools of interpreters since 3.14"
)


@pytest.fixture(params=[workers, threads, processes, pytest.param(interpreters, marks=since_3_14)])
def make(request: pytest.FixtureRequest) -> Make:
    """Make an executor of each kind with so many workers."""
    make: Make = request.param
    return make


class Kept(Executor):
    """An executor that returns its futures and makes no call."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


# Results and homes.


def test_results_and_exceptions(make: Make):
    async def main() -> None:
        with make(2) as pool:
            assert await run_in(pool, sum, [1, 2]) == 3
            assert await run_in(pool, int, "11", base=2) == 3
            results = await asyncio.gather(*(run_in(pool, abs, -number) for number in range(100)))
            assert results == list(range(100))
            with pytest.raises(ValueError, match="invalid literal") as caught:
                await run_in(pool, int, "x")
            names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
            assert names[:2] == ["main", "run_in"]
            if isinstance(pool, ProcessPoolExecutor):  # the traceback over there, as text
                assert "Traceback (most recent call last)" in str(caught.value.__cause__)

    homebound.run(main())


def test_it_resumes_at_home(make: Make, io: IOThread, io2: IOThread):
    async def home(pool: Executor) -> bool:
        ident = threading.get_ident()
        context = current_context()
        assert await run_in(pool, abs, -5) == 5
        return threading.get_ident() == ident and current_context() is context

    async def traveller(pool: Executor) -> bool:
        async with homebound.on(io.context):
            first = await home(pool)
            async with homebound.on(io2.context):
                second = await home(pool)
            return first and second and await home(pool)

    async def main() -> None:
        with make(2) as pool:
            tasks = [each.spawn(home(pool)) for each in (io, io2) for _ in range(20)]
            tasks += [asyncio.create_task(traveller(pool)) for _ in range(10)]  # type: ignore[misc]
            assert all(await asyncio.gather(home(pool), *tasks))

    homebound.run(main())


def test_from_a_stand_in(make: Make, in_thread: InThread):
    """A thread with the big lock waits, and releases the lock meanwhile."""

    async def main() -> None:
        with make(1) as pool:

            def guest() -> int:
                with homebound.big_lock:
                    result: int = block_on(run_in(pool, abs, -5))
                return result

            assert await asyncio.wrap_future(in_thread(guest)) == 5
            assert block_on(run_in(pool, abs, -6)) == 6

    homebound.run(main())


def test_on_a_stock_loop(make: Make):
    async def main() -> None:
        with make(1) as pool:
            assert await run_in(pool, sum, [1, 2]) == 3
            with pytest.raises(ValueError, match="invalid literal"):
                await run_in(pool, int, "x")

    asyncio.run(main())


def test_contextvars_stay_the_tasks():
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    async def main() -> None:
        var.set("mine")
        with ThreadPoolExecutor(1) as pool:
            assert await run_in(pool, var.get) == "unset"  # as with run_in_executor
            assert await run_in(pool, contextvars.copy_context().run, var.get) == "mine"
        assert var.get() == "mine"

    homebound.run(main())


def test_a_future_that_is_done_at_once(run: Callable[..., Any]):
    class AtOnce(Executor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    async def main() -> None:
        assert await run_in(AtOnce(), sum, [1, 2]) == 3

    run(main())


def test_a_stray_wake_does_not_end_it():
    async def main() -> None:
        pool = Kept()
        task: Any = asyncio.create_task(run_in(pool, int))
        await asyncio.sleep(0)
        for _ in range(3):
            task.wake()
            await asyncio.sleep(0)
        assert not task.done()
        pool.futures[0].set_result(7)
        assert await task == 7

    homebound.run(main())


def test_it_resumes_where_it_was_entered(io: IOThread):
    """Entering the task elsewhere while it waits moves it, like any suspended task."""

    async def main() -> None:
        pool = Kept()

        async def wait() -> str:
            await run_in(pool, int)
            return threading.current_thread().name

        task: Any = asyncio.create_task(wait())
        await asyncio.sleep(0)
        io.context.schedule(task)
        await io.spawn(asyncio.sleep(0))
        pool.futures[0].set_result(0)
        assert await task == "io"

    homebound.run(main())


# Cancelling.


def test_a_call_that_has_not_begun_is_not_made(make: Make, held_job: Gates, tmp_path: Path):
    async def main() -> None:
        first = held_job()
        with make(1) as pool:
            busy = asyncio.create_task(run_in(pool, *first.job))
            await first.begun()
            waiting = [
                asyncio.create_task(run_in(pool, os.mkdir, tmp_path / str(number)))
                for number in range(5)
            ]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            outcomes = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(each) for each in outcomes] == [asyncio.CancelledError] * 5
            first.end()
            assert await busy == b""
        done = sum((tmp_path / str(number)).exists() for number in range(5))
        # A process pool queues up to two calls to a busy process, at a time of its own: these count
        # as begun, whichever of the five it finds not cancelled yet.
        assert done <= (2 if make is processes else 0)

    homebound.run(main())


def test_a_call_that_runs_goes_on_without_its_task(make: Make, held_job: Gates):
    """The task is cancelled at once; the late completion ends no later wait of the task."""

    async def main() -> None:
        first = held_job()
        with make(1) as pool:
            sleeps = []

            async def wait() -> str:
                with pytest.raises(asyncio.CancelledError):
                    await run_in(pool, *first.job)
                sleeps.append(1)
                await homebound.suspend()
                return "woken"

            task: Any = asyncio.create_task(wait())
            await first.begun()
            task.cancel()
            while not sleeps:
                await asyncio.sleep(0)
            first.end()
            assert await run_in(pool, abs, -5) == 5  # by the same worker, so the first has ended
            assert not task.done()
            task.wake()
            assert await task == "woken"

    homebound.run(main())


@pytest.mark.parametrize("impatient", [False, True])
def test_a_cancellation_that_blocks_leaves_the_home_free(impatient: bool, io: IOThread):  # noqa: FBT001
    """A cluster's executor asks its scheduler on `cancel()`, and blocks the caller meanwhile."""
    asked, answer = threading.Event(), threading.Event()
    executor = Kept()

    def ask(future: Future[Any]) -> None:
        assert future.cancelled()
        asked.set()
        assert answer.wait(20)

    async def name() -> str:
        return threading.current_thread().name

    task = io.spawn(run_in(executor, int))
    assert block_on(name(), io.context) == "io"  # it has submitted its call
    [future] = executor.futures
    future.add_done_callback(ask)
    task.cancel()
    assert asked.wait(20)
    assert block_on(name(), io.context, timeout=20) == "io"  # its loop runs
    assert not task.done()
    if impatient:
        task.cancel()
    else:
        answer.set()
    with pytest.raises(asyncio.CancelledError):
        block_on(task, timeout=20)
    answer.set()


def test_timeout(make: Make, held_job: Gates):
    async def strike_when_begun(first: Any, alarm: asyncio.Timeout) -> None:
        await first.begun()  # a job that has not begun is withdrawn, and never begins
        alarm.reschedule(asyncio.get_running_loop().time())

    async def main() -> None:
        first = held_job()
        with make(1) as pool:
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with asyncio.timeout(None) as alarm:
                    striking = asyncio.create_task(strike_when_begun(first, alarm))
                    await run_in(pool, *first.job)
            await striking
            first.end()
            assert await run_in(pool, sum, [1, 2]) == 3

    homebound.run(main())


def test_cancelled_by_another_party(run: Callable[..., Any]):
    """asyncio's error, as from run_in_executor, which a task group recognises."""

    async def main() -> None:
        pool = Kept()
        task = asyncio.create_task(run_in(pool, int))
        await asyncio.sleep(0)
        assert pool.futures[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())


def test_a_pool_shut_down_while_tasks_wait(make: Make, held_job: Gates):
    async def main() -> None:
        first = held_job()
        pool = make(1)
        busy = asyncio.create_task(run_in(pool, *first.job))
        await first.begun()
        waiting = [asyncio.create_task(run_in(pool, int)) for _ in range(5)]
        await asyncio.sleep(0)
        ending = asyncio.create_task(to_worker(pool.shutdown, cancel_futures=True))
        await asyncio.wait(waiting[2:])  # while the first job runs
        assert not busy.done()
        first.end()
        assert await busy == b""
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        if isinstance(pool, ProcessPoolExecutor):  # the pool had queued the first two
            outcomes = [each for each in outcomes if each != 0]
            assert len(outcomes) >= 3
        assert {type(each) for each in outcomes} == {asyncio.CancelledError}
        await ending

    homebound.run(main())


# Errors of an executor.


def test_a_pool_that_was_shut_down(make: Make):
    async def main() -> None:
        pool = make(1)
        pool.shutdown()
        with pytest.raises(RuntimeError, match=r"shut ?down"):
            await run_in(pool, int)

    homebound.run(main())


def test_submit_fails(run: Callable[..., Any]):
    class Full(Executor):
        def submit(self, *_: Any, **__: Any) -> Future[Any]:
            raise BlockingIOError("full")

    async def main() -> None:
        with pytest.raises(BlockingIOError, match="full"):
            await run_in(Full(), int)

    run(main())


def test_what_cannot_be_pickled_is_refused():
    async def main() -> None:
        with processes(1) as pool:
            with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
                await run_in(pool, lambda: 1)
            assert await run_in(pool, sum, [1, 2]) == 3

    homebound.run(main())


def test_no_executor(run: Callable[..., Any]):
    class Client:
        def submit(self, *_: Any) -> object:
            return object()

    async def main() -> None:
        client: Any = Client()
        with pytest.raises(
            TypeError,
            match=r"Client\.submit returned a builtins\.object, .*client\.get_executor\(\)",
        ):
            await run_in(client, int)
        nothing: Any = None
        with pytest.raises(TypeError, match=r"takes a .*Executor, got None; `to_worker"):
            await run_in(nothing, int)

    run(main())
