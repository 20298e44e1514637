"""An end that is requested twice: it happens once, and nothing interrupts the cleanup."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, IOThreadPool, block_on
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

FACTORIES = [homebound.new_event_loop, asyncio.SelectorEventLoop]


class Cleanup:
    """A task whose cleanup goes on until the test lets it end."""

    def __init__(self, io: IOThread) -> None:
        self.begun, self.finished = threading.Event(), False
        self.go_on = homebound.Event()
        began = threading.Event()
        self.task = io.spawn(self._work(began))
        assert began.wait(10)

    async def _work(self, began: threading.Event) -> None:
        try:
            began.set()
            await asyncio.sleep(3600)
        finally:
            self.begun.set()
            await self.go_on.wait()
            self.finished = True


@pytest.mark.parametrize("factory", FACTORIES)
def test_after_a_timeout(factory: Callable[[], asyncio.AbstractEventLoop]):
    with IOThread(loop_factory=factory) as io:
        cleanup = Cleanup(io)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                io.stop(timeout=0)
        assert cleanup.begun.wait(10)
        with pytest.raises(TimeoutError):
            io.stop(timeout=0)
        cleanup.go_on.set()
    assert cleanup.finished
    assert cleanup.task.cancelled()


def test_from_two_threads(in_thread: InThread):
    io = IOThread()
    io.start()
    cleanup = Cleanup(io)
    stops = [in_thread(io.stop) for _ in range(2)]
    assert cleanup.begun.wait(10)
    stops.append(in_thread(io.stop))
    cleanup.go_on.set()
    for stop in stops:
        stop.result(10)
    assert cleanup.finished


def test_async_with_and_a_stop_within(in_thread: InThread):
    async def main() -> bool:
        async with IOThread() as io:
            cleanup = Cleanup(io)
            stop = in_thread(io.stop)
            await homebound.to_worker(cleanup.begun.wait, 10)
            asyncio.get_running_loop().call_soon(cleanup.go_on.set)
        await asyncio.wrap_future(stop)
        return cleanup.finished

    assert homebound.run(main())


@pytest.mark.parametrize("run", [homebound.run, asyncio.run], ids=["homebound", "asyncio"])
def test_two_tasks_wait_for_one_end(run: Callable[[Any], Any]):
    """However often one of them is cancelled."""

    async def main() -> None:
        io = IOThread()
        io.start()
        cleanup = Cleanup(io)
        stops = [asyncio.create_task(io.astop()) for _ in range(2)]
        assert await asyncio.to_thread(cleanup.begun.wait, 10)
        for _ in range(3):
            stops[1].cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not any(stop.done() for stop in stops)
        cleanup.go_on.set()
        assert await stops[0] is None
        assert cleanup.finished
        with pytest.raises(asyncio.CancelledError):
            await stops[1]
        await io.astop()

    run(main())


def test_a_task_waits_although_the_loop_of_another_is_closed(in_thread: InThread):
    io = IOThread()
    io.start()
    cleanup = Cleanup(io)
    loop = asyncio.new_event_loop()
    first: Any = io.astop()
    loop.call_later(0, loop.stop)
    future = loop.create_task(first)
    loop.run_forever()
    loop.close()
    second = in_thread(asyncio.run, io.astop())
    assert cleanup.begun.wait(10)
    until(lambda: len(io._at_end._wakes) == 2)
    cleanup.go_on.set()
    second.result(10)
    assert cleanup.finished
    io.join()
    future._log_destroy_pending = False  # type: ignore[attr-defined]  # it never ends


def test_a_pool():
    with IOThreadPool(2) as pool:
        cleanups = [Cleanup(io) for io in pool.threads]
        with pytest.raises(TimeoutError):
            pool.stop(timeout=0)
        for cleanup in cleanups:
            assert cleanup.begun.wait(10)
            cleanup.go_on.set()
    assert all(cleanup.finished for cleanup in cleanups)


@pytest.mark.parametrize("factory", FACTORIES)
def test_the_loop_is_stopped_during_the_end(factory: Callable[[], asyncio.AbstractEventLoop]):
    """A stop by any caller of `loop.stop`, such as a program's own signal handler."""
    with IOThread(loop_factory=factory) as io:
        cleanup = Cleanup(io)
        with pytest.raises(TimeoutError):
            io.stop(timeout=0)
        assert cleanup.begun.wait(10)
        for _ in range(3):
            io.context.call_soon(io.context.loop.stop)
        io.context.call_soon(cleanup.go_on.set)
    assert cleanup.finished


def test_main_loop_is_stopped_during_the_end():
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            loop = asyncio.get_running_loop()
            loop.stop()
            await asyncio.sleep(0)
            loop.stop()
            await asyncio.sleep(0.001)
            log.append("cleaned up")

    async def main() -> str:
        keep.append(asyncio.create_task(work()))
        await asyncio.sleep(0)
        return "result"

    keep: list[Any] = []
    assert homebound.run(main()) == "result"
    assert log == ["cleaned up"]


def test_a_nested_wait_in_the_cleanup():
    """The stop that was put off is not carried out early."""
    io = IOThread()
    io.start()
    waits, begun, go_on = threading.Event(), threading.Event(), homebound.Event()
    finished: list[str] = []

    async def work() -> None:
        try:
            waits.set()
            block_on(asyncio.sleep(3600))
        finally:
            begun.set()
            await go_on.wait()
            finished.append("cleaned up")

    io.spawn(work())
    assert waits.wait(10)
    with pytest.raises(TimeoutError):
        io.stop(timeout=0)
    assert begun.wait(10)
    with pytest.raises(TimeoutError):
        io.stop(timeout=0)
    io.context.call_soon(io.context.loop.stop)
    io.context.call_soon(go_on.set)
    io.stop()
    assert finished == ["cleaned up"]


def test_exit_after_ctrl_c():
    """Ctrl-C ends the wait for the end; the interpreter's exit waits for the same end."""
    program = """
    import asyncio, os, signal, homebound
    async def work():
        try:
            began.set()
            await asyncio.sleep(3600)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await interrupted.wait()
            await asyncio.sleep(0.001)
            print("cleaned up", flush=True)
    began, interrupted = homebound.Event(), homebound.Event()
    try:
        with homebound.IOThread() as io:
            io.spawn(work())
            began.wait_sync()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        interrupted.set()
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("interrupted\ncleaned up\n", "")
    assert done.returncode in (0, -signal.SIGINT)
