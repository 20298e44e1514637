"""I/O threads: what is refused afterwards, foreign loops, pools, the interpreter's exit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, ContextError, IOThread, IOThreadPool, Task, block_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def nothing() -> None:
    pass


# At the end.


def test_a_loop_that_waits_for_it_is_being_closed(monkeypatch: pytest.MonkeyPatch):
    """Its context refuses the news already, and the loop is not closed yet."""

    def refuse(*_: object) -> None:
        raise ContextClosed

    async def main() -> None:
        io = IOThread().start()
        stopping = asyncio.create_task(io.astop())
        with monkeypatch.context() as patched:
            loop = asyncio.get_running_loop()
            patched.setattr(loop, "call_soon_threadsafe", refuse, raising=False)
            while io._thread.is_alive():
                await asyncio.sleep(0.001)
            assert not stopping.done()
        io._at_end.tell()
        await stopping

    said: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    homebound.run(main())
    assert not said


def test_the_main_loop_ends_while_a_stand_in_waits_for_it(in_thread: InThread):
    """The I/O thread goes on, and so does the wait."""
    io, go_on, waits = IOThread("io"), threading.Event(), threading.Event()
    io.start()
    io.context.call_soon(go_on.wait, 20)

    def stand_in() -> bool:
        with homebound.big_lock:
            homebound.main_context().call_soon(waits.set)  # type: ignore[union-attr]
            io.stop()
            return homebound.big_lock.held()

    async def main() -> Future[Any]:
        waiting = in_thread(stand_in)
        while not waits.is_set():
            await asyncio.sleep(0)
        return waiting

    waiting = homebound.run(main())
    assert not waiting.done()
    go_on.set()
    assert waiting.result(20)


def test_a_move_there_as_it_ends_is_refused(in_thread: InThread):
    """The tasks there were cancelled before: one that came now would be dropped half-way."""
    ending, go_on = threading.Event(), threading.Event()
    io = IOThread("io")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ending.set()
            go_on.wait(10)

    async def begin(kept: list[Any]) -> None:
        kept.append(numbers())
        await anext(kept[0])

    async def main() -> None:
        kept: list[Any] = []
        await io.spawn(begin(kept))
        stopped = in_thread(io.stop)
        await homebound.to_worker(ending.wait, 10)
        home = homebound.current_context()
        with pytest.raises(ContextClosed):
            await homebound.move_to(io.context)
        assert homebound.current_context() is home
        go_on.set()
        await asyncio.wrap_future(stopped)

    io.start()
    homebound.run(main())


# Afterwards.


def test_everything_is_refused_afterwards(in_thread: InThread):
    with IOThread("gone") as io:
        context = io.context
        future = context.loop.create_future()
        done_task = io.spawn(where())
        block_on(done_task)
    fresh = Task(nothing())
    coro = nothing()
    acts: dict[str, Callable[[], object]] = {
        "spawn": lambda: io.spawn(nothing()),
        "schedule": lambda: context.schedule(fresh),
        "enter": lambda: context.enter(fresh),
        "call_soon": lambda: context.call_soon(print),
        "bottom half": lambda: context.bottom_half(print).schedule(),
        "block_on": lambda: block_on(coro, context),
    }
    for name, act in acts.items():
        for call in (act, lambda act=act: in_thread(act).result(10)):
            with pytest.raises(ContextClosed, match=r"'gone'.*has ended"):
                call()
            assert name
    coro.close()
    context.notify()
    assert context.stats().tasks == 0

    async def main() -> None:
        with pytest.raises(ContextClosed):
            await homebound.move_to(context)
        with pytest.raises(ContextClosed):
            await future
        assert await done_task == "gone"
        with pytest.raises(ContextClosed):
            io.spawn(nothing())
        with pytest.raises(ContextClosed):
            context.enter(fresh)

    homebound.run(main())
    fresh.cancel()


def test_a_task_suspended_elsewhere_and_moved_there_too_late(io: IOThread):
    """The task is refused there, stays at its old home, and can be woken there."""
    with IOThread("gone") as gone:
        context = gone.context

    async def work() -> str:
        await homebound.suspend()
        return threading.current_thread().name

    task = io.spawn(work())
    block_on(io.spawn(nothing()))
    with pytest.raises(ContextClosed):
        context.schedule(task)
    task.wake()
    assert block_on(task) == "io"


# Making the loop.


def test_a_loop_factory_that_fails():
    def fail() -> asyncio.AbstractEventLoop:
        raise ValueError("no loop")

    io = IOThread(loop_factory=fail)
    with pytest.raises(ValueError, match="no loop"):
        io.start()
    io.stop()
    io.join()
    with pytest.raises(ContextError):
        io.context  # noqa: B018


def test_a_loop_factory_of_asyncios():
    with IOThread("stock", loop_factory=asyncio.SelectorEventLoop) as io:
        assert block_on(io.spawn(where())) == "stock"
        assert type(io.context.loop) is asyncio.SelectorEventLoop


@pytest.mark.parametrize("option", ["poll_max_ns", "poll_grow", "poll_shrink"])
def test_polling_options_are_checked(option: str):
    with pytest.raises(ValueError, match=f"{option} is -1"):
        IOThread(**{option: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize(("grow", "shrink"), [(0, 0), (2, 2), (4, 1)])
def test_adaptive_polling_loses_nothing(grow: int, shrink: int, in_thread: InThread):
    with IOThread(poll_max_ns=50_000, poll_grow=grow, poll_shrink=shrink) as io:
        for number in range(50):
            assert (
                block_on(io.spawn(asyncio.sleep(0.0001 if number % 10 == 0 else 0, number)))
                == number
            )
        got: list[int] = []
        in_thread(
            lambda: [io.context.call_soon(got.append, number) for number in range(100)]
        ).result(10)
        block_on(io.spawn(nothing()))
        assert got == list(range(100))


# Pools.


def test_a_pool_spawns_in_its_threads_by_turns():
    with IOThreadPool(3, name="disk") as pool:
        assert [block_on(pool.spawn(where())) for _ in range(6)] == ["disk0", "disk1", "disk2"] * 2
        assert {pool.next().name for _ in range(3)} == {"disk0", "disk1", "disk2"}

    async def main() -> None:
        async with IOThreadPool(2) as pool:
            names = await asyncio.gather(*(pool.spawn(where()) for _ in range(4)))
            assert len(set(names)) == 2

    homebound.run(main())


def test_a_pool_of_none():
    with pytest.raises(ValueError, match="at least 1"):
        IOThreadPool(0)


def test_a_pool_with_a_thread_that_cannot_start():
    made: list[int] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(1)
        if len(made) == 2:
            raise ValueError("no loop")
        return homebound.new_event_loop()

    with pytest.raises(ValueError, match="no loop"):
        IOThreadPool(3, loop_factory=factory).start()
    assert len(made) == 2


def test_a_pool_stops_all_at_once():
    """Each needs the others for its cleanup: stopped one after the other they would hang."""
    pool = IOThreadPool(2)
    pool.start()
    barrier = threading.Barrier(2)

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.to_thread(barrier.wait, 10)

    tasks = [pool.spawn(work()) for _ in range(2)]
    for thread in pool.threads:
        block_on(thread.spawn(nothing()))
    pool.stop()
    assert all(task.cancelled() for task in tasks)


def test_at_interpreter_exit_they_end_in_order():
    program = """
    import asyncio, homebound
    async def work():
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.001)
            print("cleaned up", flush=True)
    io = homebound.IOThread()
    io.start()
    io.spawn(work())
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned up\n", "")


def test_a_task_that_spawns_without_end_does_not_keep_it_from_ending():
    io = IOThread("flooded")
    io.start()
    refused = threading.Event()
    spawned = threading.Event()

    def flood() -> None:
        try:
            while True:
                io.spawn(asyncio.sleep(3600))
                spawned.set()
        except ContextClosed:
            refused.set()

    thread = threading.Thread(target=flood)
    thread.start()
    assert spawned.wait(10)
    io.stop(timeout=20)
    assert refused.wait(10)
    thread.join()
