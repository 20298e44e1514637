"""I/O threads: started, used, stopped; what is at home there is cancelled and waited for."""

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


# Life.


def test_start_use_stop():
    io = IOThread("mine")
    assert io.name == "mine"
    assert "not started" in repr(io)
    io.start()
    assert "running" in repr(io)
    assert io.context.name == "mine"
    assert block_on(io.spawn(where())) == "mine"
    assert block_on(io.context.spawn(where())) == "mine"
    io.stop()
    assert "ended" in repr(io)
    io.stop()  # no-op
    io.join()
    assert io.context.stats().closed


def test_names_are_made_up():
    assert IOThread().name != IOThread().name


def test_before_start():
    io = IOThread("mine")
    with pytest.raises(ContextError, match=r"'mine' has no context before start\(\)"):
        io.context  # noqa: B018
    coro = nothing()
    with pytest.raises(ContextError):
        io.spawn(coro)
    coro.close()
    io.stop()
    io.join()


def test_started_once():
    with IOThread("mine") as io:
        with pytest.raises(ContextError, match="was started before"):
            io.start()
        assert block_on(io.spawn(where())) == "mine"
    with pytest.raises(ContextError, match="was started before"):
        io.start()


def test_with_and_async_with():
    with IOThread("a") as io:
        assert block_on(io.spawn(where())) == "a"
    assert "ended" in repr(io)

    async def main() -> None:
        async with IOThread("b") as io:
            assert await io.spawn(where()) == "b"
        assert "ended" in repr(io)
        with IOThread("c") as io:
            assert await io.spawn(where()) == "c"
        assert "ended" in repr(io)

    homebound.run(main())
    asyncio.run(main())


def test_async_with_in_another_io_thread(io: IOThread):
    async def work() -> str:
        async with IOThread("inner") as inner:
            return await inner.spawn(where())

    assert block_on(io.spawn(work())) == "inner"


@pytest.mark.parametrize("how", ["stop", "with", "async with"])
def test_stop_cancels_and_waits_for_the_cleanup(how: str):
    trace: list[str] = []

    async def work() -> None:
        try:
            trace.append("began")
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            trace.append("cleaned up in " + threading.current_thread().name)
            raise

    async def main() -> Task[None]:
        async with IOThread("io") as io:
            task = io.spawn(work())
            await io.spawn(nothing())
            return task

    if how == "async with":
        task = homebound.run(main())
    else:
        io = IOThread("io")
        io.start()
        task = io.spawn(work())
        block_on(io.spawn(nothing()))
        io.stop() if how == "stop" else io.__exit__(None, None, None)
    assert task.cancelled()
    assert trace == ["began", "cleaned up in io"]


def test_stop_waits_for_tasks_begun_by_cleanup():
    done: list[str] = []

    async def late() -> None:
        await asyncio.sleep(0.001)
        done.append("late")

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            try:
                await asyncio.create_task(late())
            except asyncio.CancelledError:
                done.append("late was cancelled")

    with IOThread() as io:
        io.spawn(work())
        block_on(io.spawn(nothing()))
    assert len(done) == 1


def test_stop_shuts_generators_and_workers_down():
    trace: list[str] = []
    keep: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            trace.append("generator closed")

    async def work() -> None:
        keep.append(numbers())
        await anext(keep[0])
        await homebound.to_worker(trace.append, "worker used")
        await asyncio.to_thread(trace.append, "thread used")

    with IOThread() as io:
        block_on(io.spawn(work()))
    assert trace == ["worker used", "thread used", "generator closed"]


def test_an_exception_in_cleanup_is_reported():
    reports: list[Any] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise ValueError("in cleanup")

    with IOThread() as io:
        io.context.loop.set_exception_handler(lambda _, report: reports.append(report))
        io.spawn(work())
        block_on(io.spawn(nothing()))
    assert [type(report["exception"]) for report in reports] == [ValueError]


def test_what_was_posted_before_stop_runs_before_it():
    ran: list[int] = []
    with IOThread() as io:
        for number in range(100):
            io.context.call_soon(ran.append, number)
    assert ran == list(range(100))


def test_stop_and_join_with_a_timeout():
    leave = threading.Event()
    io = IOThread("busy")
    io.start()
    io.context.call_soon(leave.wait, 10)
    with pytest.raises(TimeoutError):
        io.join(0.001)
    with pytest.raises(TimeoutError):
        io.stop(0.001)
    leave.set()
    io.join()
    io.stop(10)
    assert "ended" in repr(io)


def test_stop_by_several_threads_at_once(in_thread: InThread):
    io = IOThread()
    io.start()
    barrier = threading.Barrier(4)

    def stop() -> None:
        barrier.wait()
        io.stop()

    for done in [in_thread(stop) for _ in range(4)]:
        done.result(10)


def test_not_in_its_own_thread(io: IOThread):
    async def stop(act: Callable[[], None]) -> None:
        with pytest.raises(homebound.WouldDeadlock, match="which is the one to end"):
            act()

    for act in (io.stop, io.join):
        block_on(io.spawn(stop(act)))
    assert block_on(io.spawn(where())) == "io"


def test_not_in_another_io_thread(io: IOThread, io2: IOThread):
    async def stop() -> None:
        for act in (io2.stop, io2.join):
            with pytest.raises(homebound.WouldDeadlock):
                act()

    block_on(io.spawn(stop()))
    assert block_on(io2.spawn(where())) == "io2"


def test_the_main_loop_turns_while_it_waits_for_the_end():
    """The task that is cancelled there needs the main loop for its cleanup."""
    trace: list[str] = []

    async def main() -> None:
        home = homebound.current_context()
        assert home is not None

        async def work() -> None:
            try:
                await asyncio.sleep(30)
            finally:
                await home.spawn(ask())

        async def ask() -> None:
            trace.append("asked")

        with IOThread() as io:
            io.spawn(work())
            await io.spawn(nothing())

    homebound.run(main())
    assert trace == ["asked"]


def test_a_lock_holder_may_stop_one(in_thread: InThread):
    async def main() -> None:
        def work() -> None:
            with homebound.big_lock:
                io = IOThread()
                io.start()
                assert block_on(io.spawn(where()), io.context) == io.name
                io.stop()

        await asyncio.wrap_future(in_thread(work))

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
            with pytest.raises(ContextClosed, match="'gone'.*has ended"):
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
    """Refused, it stays where it was, and can be woken there."""
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
        IOThread(**{option: -1})


@pytest.mark.parametrize(("grow", "shrink"), [(0, 0), (2, 2), (4, 1)])
def test_adaptive_polling_loses_nothing(grow: int, shrink: int, in_thread: InThread):
    with IOThread(poll_max_ns=50_000, poll_grow=grow, poll_shrink=shrink) as io:
        for number in range(50):
            assert block_on(io.spawn(asyncio.sleep(0.0001 if number % 10 == 0 else 0, number))) == number
        got: list[int] = []
        in_thread(lambda: [io.context.call_soon(got.append, number) for number in range(100)]).result(10)
        block_on(io.spawn(nothing()))
        assert got == list(range(100))


# Pools.


def test_a_pool_takes_turns():
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


def test_a_pool_one_of_which_cannot_start():
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
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned up\n", "")
