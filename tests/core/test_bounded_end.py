"""Ends with a time limit: what has not ended in time is reported, with stacks, and abandoned."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, IOThread, WorkerPool, block_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

HEAD = """
import asyncio, threading, homebound

async def stubborn(began):
    while True:
        try:
            began.set()
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
"""


def run(program: str) -> tuple[str, str, int]:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    return done.stdout, done.stderr, done.returncode


class Reports(list[str]):
    """A collector of the messages that a loop's exception handler gets."""

    def __call__(self, _loop: object, context: dict[str, Any]) -> None:
        self.append(context["message"])


async def patient(forever: asyncio.Future[None]) -> None:
    """A task that ignores its first cancellation."""
    try:
        await forever
    except asyncio.CancelledError:
        await asyncio.get_running_loop().create_future()


def test_run_abandons_a_task(in_thread: InThread):
    reports = Reports()
    waiting: list[Future[Any]] = []

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(reports)
        task = asyncio.create_task(patient(loop.create_future()), name="patient")
        await asyncio.sleep(0)
        waiting.append(in_thread(block_on, task))
        return "result"

    assert homebound.run(main(), shutdown_timeout=0) == "result"
    with pytest.raises(ContextClosed):
        waiting[0].result(10)
    assert len(reports) == 1
    assert reports[0].startswith("'main' has not ended after 0 s, in _end_tasks; abandoned:\n")
    assert "  task 'patient':\n" in reports[0]
    assert ", in patient" in reports[0]


@pytest.mark.parametrize("wait", ["block_on", "wait_while", "poll"])
def test_run_abandons_nested_waits(wait: str):
    """The cleanup waits as well, forever."""
    reports = Reports()
    left: list[str] = []

    def endless() -> None:
        context = homebound.current_context()
        assert context is not None
        if wait == "block_on":
            block_on(patient(asyncio.get_running_loop().create_future()))
        elif wait == "wait_while":
            homebound.wait_while(lambda: True, context)
        else:
            while True:
                context.poll()

    async def work() -> None:
        try:
            endless()
        except asyncio.CancelledError:
            endless()
        finally:
            left.append(wait)

    async def main() -> str:
        asyncio.get_running_loop().set_exception_handler(reports)
        keep.append(asyncio.create_task(work()))
        await asyncio.sleep(0)
        return "result"

    keep: list[Any] = []
    assert homebound.run(main(), shutdown_timeout=0.01) == "result"
    assert left == [wait]


@pytest.mark.filterwarnings("ignore:coroutine method 'aclose'")  # there is no time for it
def test_run_abandons_a_generator():
    reports = Reports()

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.get_running_loop().create_future()

    async def main() -> str:
        asyncio.get_running_loop().set_exception_handler(reports)
        keep.append(numbers())
        return str(await anext(keep[0]))

    keep: list[Any] = []
    assert homebound.run(main(), shutdown_timeout=0) == "1"
    assert ", in shutdown_asyncgens; abandoned:" in reports[0]


def test_run_abandons_a_worker():
    reports = Reports()
    go_on, begun = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        go_on.wait(20)

    async def main() -> WorkerPool:
        asyncio.get_running_loop().set_exception_handler(reports)
        keep.append(asyncio.create_task(homebound.to_worker(job)))
        await asyncio.sleep(0)
        context = homebound.current_context()
        assert context is not None
        begun.wait(20)
        pool: WorkerPool = context.workers
        return pool

    keep: list[Any] = []
    pool = homebound.run(main(), shutdown_timeout=0)
    assert "abandoned:" in reports[0]
    assert ", in job\n" in reports[0]
    go_on.set()
    pool.shutdown()


def test_run_in_time():
    """The limit does not change an end that keeps it."""
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)
            log.append("cleaned up")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(reports)
        keep.append(asyncio.create_task(work()))
        await asyncio.sleep(0)

    reports = Reports()
    keep: list[Any] = []
    homebound.run(main(), shutdown_timeout=60)
    assert log == ["cleaned up"]
    assert not reports


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_run_refuses(timeout: float):
    async def main() -> None:
        pass

    with pytest.raises(ValueError, match="shutdown_timeout is"):
        homebound.run(main(), shutdown_timeout=timeout)


def test_stop_says_what_has_not_ended():
    with IOThread("io") as io:
        go_on = homebound.Event()
        began = threading.Event()

        async def slow() -> None:
            try:
                began.set()
                await asyncio.sleep(3600)
            finally:
                await go_on.wait()

        io.context.spawn(slow(), name="slow")
        assert began.wait(10)
        with pytest.raises(TimeoutError) as caught:
            io.stop(timeout=0)
        go_on.set()
    message = str(caught.value)
    assert message.startswith("IOThread 'io' has not ended after 0 s\n  thread 'io':\n")
    assert "\n  task 'slow':\n" in message
    assert "<locals>.slow" in message


def test_shutdown_says_what_has_not_ended():
    go_on, begun = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        go_on.wait(20)

    pool = WorkerPool(name="disk")
    pool.submit(job)
    assert begun.wait(10)
    with pytest.raises(TimeoutError) as caught:
        pool.shutdown(timeout=0)
    message = str(caught.value)
    assert "'disk' shut down, 1 threads" in message
    assert " has not ended after 0 s:\n  thread 'disk-0':\n" in message
    assert ", in job\n" in message

    async def main() -> None:  # a home that waits keeps running its loop
        turned: list[int] = []
        asyncio.get_running_loop().call_soon(turned.append, 1)
        with pytest.raises(TimeoutError):
            pool.shutdown(timeout=0.01)
        assert turned == [1]

    homebound.run(main())
    go_on.set()
    pool.shutdown(timeout=20)


ENDS = {
    "run": """
        async def main():
            keep = asyncio.create_task(stubborn(asyncio.Event()))
            await asyncio.sleep(0)
        homebound.run(main(), shutdown_timeout=0.01)
        """,
    "run, worker": """
        async def main():
            begun = threading.Event()
            def job():
                begun.set()
                threading.Event().wait()
            keep = asyncio.create_task(homebound.to_worker(job))
            await asyncio.sleep(0)
            begun.wait()
        homebound.run(main(), shutdown_timeout=0.01)
        """,
    "IOThread": """
        io = homebound.IOThread()
        io.start()
        began = threading.Event()
        io.spawn(stubborn(began))
        began.wait()
        try:
            io.stop(timeout=0.01)
        except TimeoutError:
            pass
        """,
    "IOThread, worker": """
        io = homebound.IOThread()
        io.start()
        begun = threading.Event()
        def job():
            begun.set()
            threading.Event().wait()
        io.spawn(homebound.to_worker(job))
        begun.wait()
        try:
            io.stop(timeout=0.01)
        except TimeoutError:
            pass
        """,
    "IOThreadPool": """
        pool = homebound.IOThreadPool(2)
        pool.start()
        for _ in range(2):
            began = threading.Event()
            pool.spawn(stubborn(began))
            began.wait()
        try:
            pool.stop(timeout=0.01)
        except TimeoutError:
            pass
        """,
    "WorkerPool": """
        begun = threading.Event()
        def job():
            begun.set()
            threading.Event().wait()
        pool = homebound.WorkerPool()
        pool.submit(job)
        begun.wait()
        try:
            pool.shutdown(timeout=0.01)
        except TimeoutError:
            pass
        """,
}


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_exits(end: str):
    stdout, _, code = run(textwrap.dedent(ENDS[end]) + 'print("exit", flush=True)\n')
    assert (stdout, code) == ("exit\n", 0)
