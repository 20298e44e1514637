"""Wrong uses of what waits and what runs a loop: what is called, and what is said."""

from __future__ import annotations

import asyncio
import sys

import pytest

import homebound
from homebound import (
    ContextClosed,
    ContextError,
    IOThread,
    WouldDeadlock,
    WrongThread,
    block_on,
    run,
)

from .wrong_uses import WrongUses, call, started, suspended, work

WRONG = WrongUses()

# Waiting where no coroutine runs.


@WRONG.say(
    ContextError,
    "block_on: there is no context to run it in; name one, block_on(x, ctx), an IOThread for "
    "example, or start a main loop with run(x)",
)
def block_on_without_a_context(_io: IOThread, _io2: IOThread) -> None:
    block_on(work())


@WRONG.say(WouldDeadlock, "block_on: an I/O thread may not wait for another")
def block_on_in_one_io_thread_for_another(io: IOThread, io2: IOThread) -> None:
    block_on(io.spawn(call(block_on, work(), io2)))


@WRONG.say(WouldDeadlock, "would wait for itself")
def block_on_oneself(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        me = homebound.current_task()
        assert me is not None
        block_on(me)

    run(main())


@WRONG.say(TypeError, "an awaitable was expected, got the function work: call it, work()")
def block_on_a_function(io: IOThread, _io2: IOThread) -> None:
    block_on(work, io)  # type: ignore[arg-type]


@WRONG.say(TypeError, "an awaitable was expected, got 5")
def block_on_a_value(io: IOThread, _io2: IOThread) -> None:
    block_on(5, io)  # type: ignore[arg-type]


@WRONG.say(TypeError, "AioContext.attach(loop) is the context of a loop")
def block_on_in_a_loop(io: IOThread, _io2: IOThread) -> None:
    block_on(work(), io.context.loop)  # type: ignore[arg-type]


@WRONG.say(TimeoutError, "was cancelled after its timeout")
def block_on_for_too_long(io: IOThread, _io2: IOThread) -> None:
    block_on(asyncio.sleep(3600), io, timeout=0.001)


@WRONG.say(ContextClosed, "<AioContext 'io' closed> has ended")
def block_on_in_what_has_ended(io: IOThread, _io2: IOThread) -> None:
    io.stop()
    block_on(work(), io)


@WRONG.say(ContextError, "IOThread 'later' has no context before start(); call that")
def block_on_before_start(_io: IOThread, _io2: IOThread) -> None:
    block_on(work(), IOThread("later"))


@WRONG.say(
    asyncio.InvalidStateError,
    "task 'sleeper' is not done yet: `await` it in a coroutine; in a function, or in "
    "another thread, block_on(task)",
)
def result_of_a_task_in_a_thread(io: IOThread, _io2: IOThread) -> None:
    task = started(suspended(), io, "sleeper")
    try:
        task.result()
    finally:
        task.wake()


@WRONG.say(TypeError, "Task.result() takes no timeout and does not wait: block_on(task, timeout=5)")
def result_with_a_timeout(io: IOThread, _io2: IOThread) -> None:
    task = io.spawn(work())
    block_on(task)
    task.result(timeout=5)  # type: ignore[call-arg]


@WRONG.say(asyncio.InvalidStateError, "task 'sleeper' is not done yet: `await` it")
def exception_of_a_task_in_a_thread(io: IOThread, _io2: IOThread) -> None:
    task = started(suspended(), io, "sleeper")
    try:
        task.exception()
    finally:
        task.wake()


@WRONG.say(WouldDeadlock, "wait_while turns a loop, and there is none for thread 'MainThread'")
def wait_while_in_a_plain_thread(_io: IOThread, _io2: IOThread) -> None:
    homebound.wait_while(lambda: True)


@WRONG.say(WouldDeadlock, "wait_while: an I/O thread may not wait for another")
def wait_while_in_one_io_thread_for_another(io: IOThread, io2: IOThread) -> None:
    block_on(io.spawn(call(homebound.wait_while, bool, io2)))


@WRONG.say(
    WrongThread,
    "AioContext.poll(): only its home may poll it; 'io' was polled in thread 'MainThread'",
)
def poll_elsewhere(io: IOThread, _io2: IOThread) -> None:
    io.context.poll()


# Running.


@WRONG.say(
    ContextError,
    "run() cannot be called while a loop runs in the same thread: `await` it; in a "
    "function, block_on(x) waits",
)
def run_in_a_run(_io: IOThread, _io2: IOThread) -> None:
    run(call(run, work()))


@WRONG.say(RuntimeError, "asyncio.run() cannot be called from a running event loop")
def asyncio_run_in_a_run(_io: IOThread, _io2: IOThread) -> None:
    coro = work()
    try:
        run(call(asyncio.run, coro))
    finally:
        coro.close()


@WRONG.say(ContextError, "run() cannot be called while a loop runs in the same thread")
def run_in_an_io_thread(io: IOThread, _io2: IOThread) -> None:
    block_on(io.spawn(call(run, work())))


@WRONG.say(
    ContextError,
    "there is a main context already, 'main': use an IOThread for a second loop, or block_on(coro)",
)
def run_in_a_worker_of_a_run(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        await homebound.to_worker(run, work())

    run(main())


@WRONG.say(RuntimeError, "block_on(x, io), with an IOThread, waits for it")
def run_in_a_loop_of_asyncio(_io: IOThread, _io2: IOThread) -> None:
    asyncio.run(call(run, work()))


@WRONG.say(
    TypeError if sys.version_info >= (3, 14) else ValueError,  # asyncio.run's
    "run: a coroutine was expected, got the function work: call it, work()",
)
def run_a_function(_io: IOThread, _io2: IOThread) -> None:
    run(work)  # type: ignore[arg-type]


@WRONG.say(ValueError, "run: shutdown_timeout is -1; it must be 0 or more seconds")
def run_with_a_negative_timeout(_io: IOThread, _io2: IOThread) -> None:
    run(work(), shutdown_timeout=-1)


@pytest.mark.parametrize("case", WRONG)
def test_it_says_what_is_wrong_and_goes_on(case: str, io: IOThread, io2: IOThread):
    WRONG.check(case, io, io2)
