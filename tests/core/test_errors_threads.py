"""Wrong uses in coroutines, of threads and of the big lock: what is called, and what is said."""

from __future__ import annotations

import asyncio
import concurrent.futures

import pytest

import homebound
from homebound import (
    AioContext,
    ContextClosed,
    ContextError,
    IOThread,
    IOThreadPool,
    WorkerPool,
    WouldDeadlock,
    WrongThread,
    big_lock,
    block_on,
    run,
)

from .wrong_uses import WrongUses, call, suspended, work

WRONG = WrongUses()

# In coroutines.


@WRONG.say(
    ContextError,
    "suspend() was awaited in a task that is not homebound's; make the task with "
    "homebound.create_task",
)
def suspend_an_asyncio_task(_io: IOThread, _io2: IOThread) -> None:
    asyncio.run(suspended())


@WRONG.say(ContextError, "move_to() was awaited in a task that is not homebound's")
def move_an_asyncio_task(io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        await homebound.move_to(io)

    asyncio.run(main())


@WRONG.say(TypeError, "move_to() takes an AioContext or an IOThread, got <Loop")
def move_to_a_loop(io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        await homebound.move_to(io.context.loop)  # type: ignore[arg-type]

    run(main())


@WRONG.say(ContextClosed, "<AioContext 'io' closed> has ended")
def move_to_what_has_ended(io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        await homebound.move_to(io)

    io.stop()
    run(main())


@WRONG.say(TypeError, "to_worker calls a blocking function, and work is async: write `await")
def to_worker_of_an_async_function(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        await homebound.to_worker(work)  # type: ignore[unused-coroutine]

    run(main())


@WRONG.say(ContextError, "to_worker needs the loop of a context")
def to_worker_in_a_loop_of_asyncio(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        await homebound.to_worker(int)

    asyncio.run(main())


@WRONG.say(TypeError, "run_in takes a concurrent.futures.Executor, got the class int")
def run_in_no_executor(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        await homebound.run_in(int, int)  # type: ignore[arg-type]

    run(main())


@WRONG.say(TypeError, "run_in calls a blocking function, and work is async")
def run_an_async_function_in_an_executor(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            await homebound.run_in(pool, work)  # type: ignore[unused-coroutine]

    run(main())


# Threads.


@WRONG.say(ContextError, "IOThread 'io' was started before; make another one")
def start_an_io_thread_twice(io: IOThread, _io2: IOThread) -> None:
    io.start()


@WRONG.say(ContextError, "IOThread 'io' was started before; make another one")
def start_an_io_thread_again(io: IOThread, _io2: IOThread) -> None:
    io.stop()
    io.start()


@WRONG.say(
    WouldDeadlock,
    "IOThread.stop was called in thread 'io' (current context 'io'), the thread that is to end",
)
def stop_an_io_thread_in_itself(io: IOThread, _io2: IOThread) -> None:
    block_on(io.spawn(call(io.stop)))


@WRONG.say(WouldDeadlock, "`await io.astop()` and `async with IOThread()` do not block")
def stop_one_io_thread_in_another(io: IOThread, io2: IOThread) -> None:
    block_on(io.spawn(call(io2.stop)))


@WRONG.say(ValueError, "IOThreadPool: n is 0; it must be at least 1")
def a_pool_of_no_threads(_io: IOThread, _io2: IOThread) -> None:
    IOThreadPool(0)


@WRONG.say(ValueError, "WorkerPool: max_threads is 0; it must be at least 1")
def a_pool_of_no_workers(_io: IOThread, _io2: IOThread) -> None:
    WorkerPool(0)


@WRONG.say(RuntimeError, "WorkerPool 'disk' was shut down: it takes no more work")
def submit_after_shutdown(_io: IOThread, _io2: IOThread) -> None:
    pool = WorkerPool(2, name="disk")
    pool.shutdown()
    pool.submit(int)


@WRONG.say(ContextError, "have that one make a homebound.Task(coro, loop=loop)")
def attach_with_a_task_factory(_io: IOThread, _io2: IOThread) -> None:
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(lambda loop, coro, **more: asyncio.Task(coro, loop=loop, **more))
    try:
        AioContext.attach(loop, tasks=True)
    finally:
        loop.close()


@WRONG.say(ContextClosed, "is closed, and had no context")
def attach_a_closed_loop(_io: IOThread, _io2: IOThread) -> None:
    loop = asyncio.SelectorEventLoop()
    loop.close()
    AioContext.attach(loop)


# The big lock.


@WRONG.say(WouldDeadlock, "big_lock.acquire(): this thread holds the big lock already")
def take_the_big_lock_twice(_io: IOThread, _io2: IOThread) -> None:
    with big_lock, big_lock:
        pass


@WRONG.say(WouldDeadlock, "big_lock.acquire(): this thread holds the big lock already")
def take_the_big_lock_in_the_main_loop(_io: IOThread, _io2: IOThread) -> None:
    run(call(big_lock.acquire))


@WRONG.say(
    WrongThread, "big_lock.release(): this thread does not hold the big lock (no thread does)"
)
def release_a_free_big_lock(_io: IOThread, _io2: IOThread) -> None:
    big_lock.release()


@WRONG.say(
    WrongThread,
    "big_lock.release(): this thread does not hold the big lock (thread 'MainThread' does)",
)
def release_the_big_lock_of_another(_io: IOThread, _io2: IOThread) -> None:
    with big_lock, concurrent.futures.ThreadPoolExecutor() as pool:
        pool.submit(big_lock.release).result(10)


@pytest.mark.parametrize("case", WRONG)
def test_it_says_what_is_wrong_and_goes_on(case: str, io: IOThread, io2: IOThread):
    WRONG.check(case, io, io2)
