"""run_in: a call through any executor, whose end wakes the task at its home.

The jobs of process pools are functions of the standard library, which a new process can import. To
read a FIFO is a job that begins when somebody opens it for writing, and ends when he closes it.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import traceback
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, WorkerPool, block_on, current_context, run_in, to_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    InThread = Callable[..., Future[Any]]
    Make = Callable[[int], Executor]


# Without a GIL a semaphore that another thread let go is finalised between any two steps of its
# own: also in those of a call to the tracker, whatever the collector does. It is unlinked by then.
pytestmark = pytest.mark.filterwarnings("ignore:ResourceTracker called reentrantly:UserWarning")


def workers(most: int) -> Executor:
    return WorkerPool(max_threads=most)


def threads(most: int) -> Executor:
    return ThreadPoolExecutor(most)


def processes(most: int) -> Executor:
    return ProcessPoolExecutor(most, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(autouse=True)
def _collected_between_tests() -> Iterator[None]:
    """A broken pool's semaphores are garbage that tells multiprocessing's resource tracker so.

    Collected in the midst of a call to the tracker, as the next pool is made, they call it again
    (python/cpython#109629).
    """
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.fixture(params=[workers, threads, processes])
def make(request: pytest.FixtureRequest) -> Make:
    """An executor with so many workers, of each kind."""
    make: Make = request.param
    return make


class Gate:
    """A job in any executor that has begun, and ends when the test says so."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.job = (Path.read_bytes, path)
        self._path = path

    async def begun(self) -> None:
        self._end = await to_worker(self._path.open, "wb")

    def end(self) -> None:
        self._end.close()


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[], Gate]:
    numbers = iter(range(100))
    return lambda: Gate(tmp_path / f"gate{next(numbers)}")


class Kept(Executor):
    """Hands out its futures, and does nothing."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


# What comes back, and where.


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
    """A thread with the big lock waits; it lets go of the lock meanwhile."""

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


def test_it_was_done_before_anybody_could_wait(run: Callable[..., Any]):
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
    """Whoever enters it elsewhere while it waits has moved it, as any suspended task."""

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


def test_what_has_not_begun_is_not_done(make: Make, gate: Callable[[], Gate], tmp_path: Path):
    async def main() -> None:
        first = gate()
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
        # A process pool's own thread sends up to two ahead of a busy process, when it gets to it:
        # they are as good as begun, whichever of the five it finds not cancelled yet.
        assert done <= (2 if make is processes else 0)

    homebound.run(main())


def test_what_runs_goes_on_without_us(make: Make, gate: Callable[[], Gate]):
    """The task is cancelled at once; the late end wakes nobody from a later wait."""

    async def main() -> None:
        first = gate()
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
            assert await run_in(pool, abs, -5) == 5  # by the one worker: so the first has ended
            assert not task.done()
            task.wake()
            assert await task == "woken"

    homebound.run(main())


@pytest.mark.parametrize("impatient", [False, True])
def test_a_cancellation_that_asks_somebody_leaves_the_home_free(impatient: bool, io: IOThread):  # noqa: FBT001
    """A cluster's executor asks its scheduler, and blocks meanwhile whoever cancels."""
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
    assert block_on(name(), io.context, timeout=20) == "io"  # its loop turns
    assert not task.done()
    if impatient:
        task.cancel()
    else:
        answer.set()
    with pytest.raises(asyncio.CancelledError):
        block_on(task, timeout=20)
    answer.set()


def test_timeout(make: Make, gate: Callable[[], Gate]):
    async def strike_when_begun(first: Gate, alarm: asyncio.Timeout) -> None:
        await first.begun()  # a job that has not begun is taken back, and never does
        alarm.reschedule(asyncio.get_running_loop().time())

    async def main() -> None:
        first = gate()
        with make(1) as pool:
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with asyncio.timeout(None) as alarm:
                    striking = asyncio.create_task(strike_when_begun(first, alarm))
                    await run_in(pool, *first.job)
            await striking
            first.end()
            assert await run_in(pool, sum, [1, 2]) == 3

    homebound.run(main())


def test_cancelled_by_somebody_else(run: Callable[..., Any]):
    """asyncio's error, as from run_in_executor: a task group takes it for what it is."""

    async def main() -> None:
        pool = Kept()
        task = asyncio.create_task(run_in(pool, int))
        await asyncio.sleep(0)
        assert pool.futures[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())


def test_a_pool_shut_down_while_tasks_wait(make: Make, gate: Callable[[], Gate]):
    async def main() -> None:
        first = gate()
        pool = make(1)
        busy = asyncio.create_task(run_in(pool, *first.job))
        await first.begun()
        waiting = [asyncio.create_task(run_in(pool, int)) for _ in range(5)]
        await asyncio.sleep(0)
        ending = asyncio.create_task(to_worker(pool.shutdown, cancel_futures=True))
        await asyncio.wait(waiting[2:])  # while the first is still at work
        assert not busy.done()
        first.end()
        assert await busy == b""
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        if isinstance(pool, ProcessPoolExecutor):  # it had sent for the first two
            outcomes = [each for each in outcomes if each != 0]
            assert len(outcomes) >= 3
        assert {type(each) for each in outcomes} == {asyncio.CancelledError}
        await ending

    homebound.run(main())


# What an executor may do wrong.


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


def test_what_cannot_be_sent_is_refused():
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


# Processes that die.


@pytest.fixture
def children() -> Callable[[], set[Any]]:
    """The process ids of what a test has started."""

    def now() -> set[Any]:
        return {process.pid for process in multiprocessing.active_children()}

    before = now()
    return lambda: now() - before


def test_a_process_killed_mid_job(
    gate: Callable[[], Gate], children: Callable[[], set[Any]], io: IOThread
):
    """Of two, one is killed: the pool is broken, and each waiter is told, wherever it is."""

    async def main() -> None:
        first, second = gate(), gate()
        with processes(2) as pool:
            tasks = [
                asyncio.create_task(run_in(pool, *first.job)),
                io.spawn(run_in(pool, *second.job)),
            ]
            await asyncio.gather(first.begun(), second.begun())
            tasks += [asyncio.create_task(run_in(pool, int)), io.spawn(run_in(pool, int))]
            victim, _ = children()
            os.kill(victim, signal.SIGKILL)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(each) for each in outcomes] == [BrokenProcessPool] * 4
            assert "terminated abruptly" in str(outcomes[0])
            with pytest.raises(BrokenProcessPool, match="not usable anymore"):
                await run_in(pool, int)
            first.end()
            second.end()
        with processes(1) as pool:
            assert await run_in(pool, sum, [1, 2]) == 3

    homebound.run(main())


def test_a_process_killed_after_a_call_was_cancelled(
    run: Callable[..., Any], gate: Callable[[], Gate], children: Callable[[], set[Any]]
):
    """The pool still has the cancelled call in its list; all behind it are told as well."""

    def open_gate(path: Path) -> Any:
        return path.open("wb")

    async def main() -> None:
        first = gate()
        with processes(1) as pool:
            tasks: list[asyncio.Task[Any]] = [asyncio.create_task(run_in(pool, *first.job))]
            end = await asyncio.to_thread(open_gate, first.job[1])
            tasks += [asyncio.create_task(run_in(pool, int)) for _ in range(6)]
            await asyncio.sleep(0)
            tasks[4].cancel()
            await asyncio.wait(tasks[4:5])
            (victim,) = children()
            os.kill(victim, signal.SIGKILL)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(outcomes.pop(4), asyncio.CancelledError)
            assert [type(each) for each in outcomes] == [BrokenProcessPool] * 6
            end.close()

    run(main())


def test_a_job_that_kills_its_process(run: Callable[..., Any]):
    async def main() -> None:
        with processes(2) as pool:
            with pytest.raises(BrokenProcessPool, match="terminated abruptly"):
                await run_in(pool, signal.raise_signal, signal.SIGKILL)
            with pytest.raises(BrokenProcessPool, match="not usable anymore"):
                await run_in(pool, int)

    run(main())


def test_a_home_that_ends_while_a_process_works(gate: Callable[[], Gate]):
    first = gate()
    with processes(1) as pool:

        async def main() -> None:
            io = IOThread("brief")
            io.start()
            task = io.spawn(run_in(pool, *first.job))
            await first.begun()
            await to_worker(io.stop)
            with pytest.raises(asyncio.CancelledError):
                await task
            first.end()  # whose end finds nobody
            assert await run_in(pool, sum, [1, 2]) == 3

        homebound.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_processes_forked_from_a_home():
    """A pool forks in the thread that submits: with what the child must not take for its own."""
    program = """
    import asyncio, os, threading, homebound
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from homebound import big_lock, block_on, run_in, to_worker

    parent = os.getpid()

    def work(number):
        assert os.getpid() != parent
        assert homebound.current_context() is homebound.main_context() is None
        assert not big_lock.held()
        async def main():
            return await to_worker(abs, -number)
        return homebound.run(main())

    async def use():
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            jobs = (run_in(pool, work, number) for number in range(6))
            assert await asyncio.gather(*jobs) == list(range(6))
            try:
                await run_in(pool, int, "x")
            except ValueError as error:
                assert "Traceback" in str(error.__cause__)

    def stand_in():
        with big_lock:
            block_on(use())

    async def main():
        beside = asyncio.create_task(to_worker(threading.Event().wait, 0.01))
        await use()
        with homebound.IOThread() as io:
            await io.spawn(use())
            await to_worker(stand_in)
            await asyncio.gather(beside, io.spawn(use()))

    homebound.run(main())
    print("done")
    """
    done = subprocess.run(
        # From 3.12 on Python warns of each fork in a process with threads: that is the test.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning",
         "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
