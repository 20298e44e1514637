"""run_in through a process pool: processes that die, and those forked from a home."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, run_in

from .executors import pool_outlives_a_home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Gates = Callable[[], Any]


# As in test_run_in.py: a broken pool's semaphores, finalised inside a call to the tracker.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ResourceTracker called reentrantly:UserWarning"),
    pytest.mark.usefixtures("collected_between_tests"),
]


def processes(most: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(most, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture
def children() -> Callable[[], set[Any]]:
    """Return the process ids that a test has started."""

    def now() -> set[Any]:
        return {process.pid for process in multiprocessing.active_children()}

    before = now()
    return lambda: now() - before


def test_a_process_killed_mid_job(held_job: Gates, children: Callable[[], set[Any]], io: IOThread):
    """One of two processes is killed: the pool is broken; each task, at any home, is notified."""

    async def main() -> None:
        first, second = held_job(), held_job()
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
    run: Callable[..., Any], held_job: Gates, children: Callable[[], set[Any]]
):
    """The pool still has the cancelled call in its list; all behind it are notified as well."""

    def open_gate(path: Path) -> Any:
        return path.open("wb")

    async def main() -> None:
        first = held_job()
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


def test_a_home_that_ends_while_a_process_works(held_job: Gates):
    with processes(1) as pool:
        pool_outlives_a_home(pool, held_job())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_processes_forked_from_a_home():
    """A pool forks in the thread that submits, whose state the child must not take for its own."""
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
        # From 3.12 on Python warns of each fork in a process with threads, which is tested here.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning",
         "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
