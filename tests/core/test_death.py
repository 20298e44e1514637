"""However a home ends, what waits for something there is notified; nothing hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextClosed, IOThread, block_on
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

TOLD = (ContextClosed, asyncio.CancelledError)


class Mortal:
    """A home in a thread of its own, and a way for it to end."""

    def __init__(self, end: str) -> None:
        self.end = end
        if end in ("close", "guest"):
            self.loop = (
                homebound.new_event_loop() if end == "close" else asyncio.SelectorEventLoop()
            )
            self.context = AioContext.attach(self.loop)
            self.thread = threading.Thread(target=self._live)
            self.thread.start()
            block_on(nothing(), self.context)
        else:
            self.io = IOThread("mortal")
            self.io.start()
            self.context = self.io.context
            self.thread = self.io._thread

    def _live(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        asyncio.set_event_loop(None)
        self.loop.close()

    def die(self) -> None:
        if self.end == "stop":
            self.io.stop()
        elif self.end in ("close", "guest"):
            self.context.call_soon(self.loop.stop)
        else:
            error = {"exit": SystemExit, "interrupt": KeyboardInterrupt}[self.end]

            def die() -> None:
                raise error

            self.context.call_soon(die)
        self.thread.join(20)
        assert not self.thread.is_alive()


async def nothing() -> None:
    pass


async def sleeper() -> None:
    await homebound.suspend()


@pytest.fixture(params=["stop", "exit", "interrupt", "close", "guest"])
def mortal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mortal]:
    """A mortal home, and what its thread raises as it ends."""
    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: said.append(args.exc_type))
    home = Mortal(request.param)
    yield home
    assert home.context.stats().closed
    assert home.context.stats().tasks == 0
    expected = {"exit": [SystemExit], "interrupt": [KeyboardInterrupt]}
    assert said == expected.get(request.param, [])


def suspended(context: AioContext, count: int) -> list[homebound.Task[Any]]:
    tasks = [context.spawn(sleeper()) for _ in range(count)]
    block_on(nothing(), context)
    return tasks


def test_threads_that_wait(mortal: Mortal, in_thread: InThread):
    tasks = suspended(mortal.context, 2)
    waiters = [in_thread(block_on, task) for task in tasks]
    waiters.append(in_thread(block_on, asyncio.sleep(3600), mortal.context))
    until(lambda: all(task._listeners for task in tasks))
    until(lambda: mortal.context.stats().tasks == 3)
    mortal.die()
    for waiter in waiters:
        with pytest.raises(TOLD):
            waiter.result(20)


def test_far_awaits(mortal: Mortal, io: IOThread):
    [task] = suspended(mortal.context, 1)
    future = mortal.context.loop.create_future()

    async def wait_for(what: Any) -> str:
        try:
            await what
        except TOLD:
            return "told"
        return "done"

    waiters = [io.spawn(wait_for(task)), io.spawn(wait_for(future))]
    block_on(nothing(), io.context)
    block_on(nothing(), mortal.context)
    mortal.die()
    assert [block_on(waiter) for waiter in waiters] == ["told"] * len(waiters)


def test_calls_after_the_end(mortal: Mortal, io: IOThread):
    context = mortal.context
    [task] = suspended(context, 1)
    mortal.die()

    async def mover() -> str:
        try:
            await homebound.move_to(context)
        except ContextClosed:
            return "told"
        return "moved"

    assert block_on(io.spawn(mover())) == "told"
    for act in (
        task.wake,
        lambda: context.schedule(task),
        lambda: context.spawn(nothing()),
        lambda: context.call_soon(print),
        lambda: block_on(nothing(), context),
        lambda: context.bottom_half(print).schedule(),
    ):
        with pytest.raises(homebound.ContextError):
            act()
    with pytest.raises(TOLD):
        block_on(task)


@pytest.mark.stress
def test_calls_while_the_home_ends(mortal: Mortal, io: IOThread, in_thread: InThread):
    """While the home ends, other threads spawn, wake, move and wait: each call ends."""
    context = mortal.context
    begun = threading.Barrier(5)

    def until_told(act: Callable[[], object]) -> int:
        begun.wait(20)
        for count in range(10**9):
            try:
                act()
            except TOLD:
                return count
        raise AssertionError

    async def visit() -> None:
        here = homebound.current_context()
        assert here is not None
        await homebound.move_to(context)
        await homebound.move_to(here)

    ends = [
        in_thread(until_told, lambda: block_on(context.spawn(nothing()))),
        in_thread(until_told, lambda: block_on(nothing(), context)),
        in_thread(until_told, lambda: block_on(io.spawn(visit()))),
        in_thread(until_told, lambda: context.call_soon(int)),
    ]
    begun.wait(20)
    mortal.die()
    for end in ends:
        end.result(20)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_io_thread_that_dies_cleans_up(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    """A callback's SystemExit ends it as `stop` does: tasks clean up, workers end."""
    said = []
    monkeypatch.setattr(threading, "excepthook", lambda args: said.append(args.exc_type))
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await homebound.to_worker(cleaned.append, "cleaned up")

    def die() -> None:
        raise error

    with IOThread() as io:
        task = io.spawn(work())
        block_on(io.spawn(nothing()))
        io.context.call_soon(die)
        io.join(20)
    assert task.cancelled()
    assert cleaned == ["cleaned up"]
    assert said == [error]


def test_a_task_that_ends_an_io_thread(monkeypatch: pytest.MonkeyPatch):
    """Waits for that task raise its SystemExit; waits for other tasks raise ContextClosed."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    async def leave() -> None:
        raise SystemExit(3)

    with IOThread() as io:
        other = suspended(io.context, 1)[0]
        with pytest.raises(SystemExit):
            block_on(io.spawn(leave()))
        with pytest.raises(TOLD):
            block_on(other)


def test_a_loop_closed_before_it_ever_ran():
    loop = homebound.new_event_loop()
    context = AioContext.attach(loop)
    task = context.spawn(nothing())
    called = context.call_soon(print)
    loop.close()
    with pytest.raises(ContextClosed):
        task.result()
    assert not called.cancelled()


# The interpreter's exit.


def run(program: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import asyncio, threading, time, homebound\n"
         "from homebound import block_on\n" + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


ALIVE = """
async def work(name):
    try:
        await asyncio.sleep(3600)
    finally:
        await homebound.to_worker(lambda: None)
        print(f"cleaned up {name}\\n", end="", flush=True)

ios = [homebound.IOThread(f"io{number}") for number in range(2)]
for io in ios:
    io.start()
    task = io.spawn(work(io.name))
    threading.Thread(target=block_on, args=(task,), daemon=True).start()
    while not task._listeners:
        pass
pool = homebound.WorkerPool()
busy = threading.Event()
def job():
    busy.set()
    block_on(asyncio.sleep(0.05), ios[0].context)  # the I/O threads are still there
    print("job done\\n", end="", flush=True)
pool.submit(job)
busy.wait()
"""
LEFT = {"job done", "cleaned up io0", "cleaned up io1"}


threads_at_exit = pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2),
    reason="3.12.0 and 3.12.1 start no thread at exit, where the cleanup needs one",
)


@threads_at_exit
@pytest.mark.parametrize(
    ("end", "status"),
    [("", 0), ("raise SystemExit(4)", 4), ("homebound.run(asyncio.sleep(0))", 0)],
)
def test_at_exit_with_everything_alive(end: str, status: int):
    code, out, err = run(ALIVE + end)
    assert (code, set(out.splitlines()), err) == (status, LEFT, "")


@threads_at_exit
def test_at_exit_inside_run():
    program = "async def main():\n    raise SystemExit(5)\nhomebound.run(main())"
    code, out, err = run(ALIVE + program)
    assert (code, set(out.splitlines()), err) == (5, LEFT, "")


def test_at_exit_a_thread_finishes_its_waiting():
    """A thread that is no daemon is waited for first, with the I/O threads at work."""
    program = """
    io = homebound.IOThread()
    io.start()
    def wait():
        print(block_on(asyncio.sleep(0.05, "result"), io.context), flush=True)
    threading.Thread(target=wait).start()
    """
    assert run(program) == (0, "result\n", "")


@threads_at_exit
def test_at_exit_cleanup_that_waits_for_a_waiter():
    """A daemon thread is left asleep, but not forever: here a task's cleanup needs it.

    The exception that then ends the thread is not reported either.
    """
    program = """
    io = homebound.IOThread()
    io.start()
    told = threading.Event()
    async def work():
        try:
            await asyncio.sleep(3600)
        finally:
            print(await homebound.to_worker(told.wait, 15), flush=True)
    async def other():
        await asyncio.sleep(3600)
    def wait():
        try:
            block_on(tasks[1])
        finally:
            told.set()
    tasks = [io.spawn(work()), io.spawn(other())]
    threading.Thread(target=wait, daemon=True).start()
    while not tasks[1]._listeners:
        pass
    """
    assert run(program) == (0, "True\n", "")
