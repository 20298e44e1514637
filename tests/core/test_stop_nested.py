"""A stop of a loop that nested calls are running: the tasks that wait in them are cancelled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, IOThreadPool, block_on

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

HEAD = """
import asyncio, contextlib, os, signal, threading, homebound
from homebound import block_on, wait_while

def poll():
    while True:
        homebound.current_context().poll()

def get():
    homebound.Queue().get_sync()

def lock():
    lock = homebound.Lock()
    lock.acquire_sync()
    lock.acquire_sync()

def condition():
    condition = homebound.Condition()
    condition.acquire_sync()
    try:
        condition.wait_sync()
    finally:
        assert condition.locked()
        condition.release()

def rw_lock(held, wanted):
    lock = homebound.RWLock()
    getattr(lock, held)()
    getattr(lock, wanted)()

def put():
    queue = homebound.Queue(1)
    queue.put_sync(1)
    queue.put_sync(2)

def join():
    queue = homebound.Queue()
    queue.put_sync(1)
    queue.join_sync()

def inline():  # the first step of one task runs in the midst of another
    async def inner():
        block_on(asyncio.sleep(3600))
    block_on(inner())

WAITS = {
    "block_on": lambda: block_on(asyncio.sleep(3600)),
    "inline": inline,
    "wait_while": lambda: wait_while(lambda: True, homebound.current_context()),
    "poll": poll,
    "get_sync": get,
    "acquire_sync": lock,
    "Condition": condition,
    "Semaphore": lambda: homebound.Semaphore(0).acquire_sync(),
    "BoundedSemaphore": lambda: homebound.BoundedSemaphore(0).acquire_sync(),
    "Event": lambda: homebound.Event().wait_sync(),
    "Barrier": lambda: homebound.Barrier(2).wait_sync(),
    "RWLock, read": lambda: rw_lock("acquire_write_sync", "acquire_read_sync"),
    "RWLock, write": lambda: rw_lock("acquire_read_sync", "acquire_write_sync"),
    "put_sync": put,
    "join_sync": join,
}

async def work(wait, log, began=lambda: None):
    try:
        began()
        WAITS[wait]()
    except asyncio.CancelledError:
        log("cancelled")
        block_on(asyncio.sleep(0.001))
        await asyncio.sleep(0.001)
        block_on(asyncio.sleep(0.001))
        log("cleaned up")
        raise
"""

_space: dict[str, Any] = {}
exec(HEAD, _space)  # the subprocesses below run the same program
work: Callable[..., Coroutine[Any, Any, None]] = _space["work"]
WAITS: dict[str, Callable[[], None]] = _space["WAITS"]
EACH = list(WAITS)
CLEAN = ["cancelled", "cleaned up"]


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    assert lines == CLEAN


@pytest.mark.parametrize("wait", EACH)
def test_an_io_thread(wait: str, log: list[str]):
    with IOThread() as io:
        task = io.spawn(work(wait, log.append))
        block_on(io.spawn(asyncio.sleep(0)))
    assert task.cancelled()


@pytest.mark.parametrize("wait", EACH)
def test_an_io_thread_that_a_task_waits_for(wait: str, log: list[str]):
    async def main() -> None:
        async with IOThread() as io:
            io.spawn(work(wait, log.append))
            await io.spawn(asyncio.sleep(0))

    homebound.run(main())


@pytest.mark.parametrize("wait", EACH)
def test_the_cleanup_of_a_task_that_another_blocks_on(wait: str, log: list[str]):
    """Both are cancelled at once: later on, the outer one's would interrupt the inner's cleanup."""

    async def outer() -> None:
        block_on(work(wait, log.append))

    with IOThread() as io:
        io.spawn(outer())
        block_on(io.spawn(asyncio.sleep(0)))


def test_a_pool():
    """Two tasks in each thread, one wait inside the other."""
    logs: list[list[str]] = [[], [], [], []]
    with IOThreadPool(2) as pool:
        for lines in logs:
            pool.spawn(work("block_on", lines.append))
        for thread in pool.threads:
            block_on(thread.spawn(asyncio.sleep(0)))
    assert logs == [CLEAN] * 4


@pytest.mark.parametrize("wait", EACH)
def test_main_returns(wait: str, log: list[str]):
    tasks = []

    async def main() -> str:
        tasks.append(asyncio.create_task(work(wait, log.append)))
        await asyncio.sleep(0)
        return "result"

    assert homebound.run(main()) == "result"
    assert tasks[0].cancelled()


@pytest.mark.parametrize("wait", EACH)
def test_a_runner_closes(wait: str, log: list[str]):
    """The task begins to wait as the other tasks are cancelled."""

    async def late() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            keep.append(asyncio.create_task(work(wait, log.append)))

    async def main() -> None:
        keep.append(asyncio.create_task(late()))
        await asyncio.sleep(0)

    keep: list[Any] = []
    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("wait", EACH)
def test_a_callback(wait: str):
    """A callback has no task to cancel: the call raises CancelledError, which the loop reports."""
    reports: list[Any] = []
    ended: list[str] = []

    def callback() -> None:
        try:
            WAITS[wait]()
        finally:
            ended.append(wait)

    with IOThread() as io:
        io.context.loop.set_exception_handler(lambda _loop, context: reports.append(context))
        io.context.call_soon(callback)
        block_on(io.spawn(asyncio.sleep(0)))
    assert ended == [wait]
    assert [type(report["exception"]) for report in reports] == [asyncio.CancelledError]


@pytest.mark.parametrize("wait", EACH)
def test_interpreter_exit(wait: str):
    lines = run(
        f"""
        io = homebound.IOThread()
        io.start()
        io.spawn(work({wait!r}, lambda line: print(line, flush=True)))
        block_on(io.spawn(asyncio.sleep(0)))
        """
    )
    assert lines == CLEAN


@pytest.mark.parametrize("wait", EACH)
@pytest.mark.parametrize("where", ["main", "another"])
def test_ctrl_c(where: str, wait: str):
    lines = run(
        f"""
        def interrupt():
            os.kill(os.getpid(), signal.SIGINT)
        async def main():
            task = work({wait!r}, print, lambda: asyncio.get_running_loop().call_soon(interrupt))
            if {where!r} == "another":
                keep = asyncio.create_task(task)
                await asyncio.sleep(3600)
            await task
        try:
            homebound.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert lines == [*CLEAN, "interrupted"]


def test_two_tasks_whose_cleanup_needs_the_other(log: list[str]):
    """All nested waits are ended at once: the inner one's task waits for the outer one's lock."""
    lock = homebound.Lock()

    async def outer() -> None:
        async with lock:
            block_on(asyncio.sleep(3600))

    async def inner() -> None:
        try:
            block_on(asyncio.sleep(3600))
        finally:
            log.append("cancelled")
            async with lock:
                log.append("cleaned up")

    with IOThread() as io:
        io.spawn(outer())
        io.spawn(inner())
        block_on(io.spawn(asyncio.sleep(0)))


def test_a_task_that_ignores_its_cancellation(log: list[str]):
    """A coroutine that ignores its cancellation is waited for, as in asyncio."""

    async def stubborn() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            log.append("cancelled")
            await asyncio.sleep(0.001)
        return "cleaned up"

    async def waits() -> None:
        log.append(block_on(stubborn()))

    with IOThread() as io:
        task = io.spawn(waits())
        block_on(io.spawn(asyncio.sleep(0)))
    assert task.done()


def test_a_task_whose_cleanup_moves_away(log: list[str]):
    """The task is at home elsewhere then: the thread it has left need not wait for it."""
    with IOThread() as other:

        async def leaves() -> None:
            try:
                block_on(asyncio.sleep(3600))
            finally:
                log.append("cancelled")
                await homebound.move_to(other.context)
                await homebound.suspend()
                log.append("cleaned up")

        with IOThread() as io:
            task = io.spawn(leaves())
            block_on(io.spawn(asyncio.sleep(0)))
        task.wake()
        with pytest.raises(asyncio.CancelledError):
            block_on(task)


def test_a_wait_for_the_end_of_another_thread_is_not_cut_short():
    ended: list[str] = []

    async def stops(io: IOThread) -> None:
        io.stop()
        ended.append(repr(io))

    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)

    async def main() -> None:
        io = IOThread("io")
        io.start()
        io.spawn(slow())
        await io.spawn(asyncio.sleep(0))
        keep.append(asyncio.create_task(stops(io)))
        await asyncio.sleep(0)

    keep: list[Any] = []
    homebound.run(main())
    assert ended == ["<IOThread 'io' ended>"]


def test_a_task_of_asyncios_own():
    """A task factory made the task: what it waits for is cancelled, and the error raised in it."""
    ended: list[str] = []

    async def waits() -> None:
        try:
            block_on(asyncio.sleep(3600))
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            ended.append("cleaned up")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(
            lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options)
        )
        keep.append(asyncio.create_task(waits()))
        await asyncio.sleep(0)

    keep: list[Any] = []
    homebound.run(main())
    assert ended == ["cleaned up"]


def test_a_poll_in_a_task_that_is_cancelled():
    """As with `wait_while`, an earlier request is for the task's next await."""
    seen: list[str] = []

    async def polls() -> None:
        task = homebound.current_task()
        assert task is not None
        task.cancel()
        homebound.current_context().poll(blocking=False)  # type: ignore[union-attr]
        seen.append("polled")
        task.uncancel()
        asyncio.get_running_loop().call_soon(task.cancel)
        try:
            homebound.current_context().poll()  # type: ignore[union-attr]
        except asyncio.CancelledError:
            seen.append("cancelled")

    homebound.run(polls())
    assert seen == ["polled", "cancelled"]
