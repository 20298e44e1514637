"""Wrong uses of run, waits, tasks and threads: a program as typed, and what that says."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

import homebound
from homebound.testing import until

from .wrong_uses import NOT_A_COROUTINE, TIMEOUT, Row, check_program

RUNNING: list[Row] = [
    ("run(work)", NOT_A_COROUTINE, "run: a coroutine was expected, got the function work: call"),
    ("run(plain())", NOT_A_COROUTINE, "got None, which a plain `def` may have returned"),
    ("run(numbers())", NOT_A_COROUTINE, "got the asynchronous generator numbers(); `async for`"),
    ("async def main():\n    run(work())\nrun(main())", homebound.WrongThread, "`await` it; in a"),
    ("create_task(work())", homebound.ContextError, "Name one, as in io.spawn(coro)"),
    ("running_context()", homebound.ContextError, "no context is current in thread 'MainThread'"),
    ("to_worker(work).send(None)", TypeError, "work is async: write `await work(...)`"),
]

WAITING: list[Row] = [
    (
        "block_on(work())",
        homebound.ContextError,
        "name one, block_on(x, ctx), an IOThread for",
    ),
    ("block_on(work, io)", TypeError, "an awaitable was expected, got the function work: call it"),
    ("block_on(plain(), io)", TypeError, "got None, which a plain `def` may have returned"),
    ("block_on(work(), 'io')", TypeError, "block_on takes an AioContext or an IOThread, got 'io'"),
    ("block_on(work(), IOThreadPool(2))", TypeError, "pool.next() is one of them"),
    ("block_on(work(), io.context.loop)", TypeError, "AioContext.attach(loop) is the context of a"),
    ("block_on(work(), io, timeout='5')", TypeError, TIMEOUT),
    ("block_on(asyncio.sleep(9), io, timeout=-1)", TimeoutError, "after its timeout of -1 s"),
    (
        "asyncio.run(call(block_on, work()))",
        homebound.ContextError,
        "an IOThread for example, or have",
    ),
    ("io.spawn(asyncio.sleep(9)).result()", asyncio.InvalidStateError, "block_on(task) waits for"),
    (
        "async def main():\n    return io.spawn(work()).result()\nblock_on(main(), io)",
        asyncio.InvalidStateError,
        "`await` it in a coroutine",
    ),
    (
        "async def main():\n    wait_while(True)\nrun(main())",
        TypeError,
        "takes a function, not True",
    ),
    (
        "async def main():\n    wait_while(work)\nrun(main())",
        TypeError,
        "wait_while takes a plain function, and work is async",
    ),
    ("block_on([work, work], io)", TypeError, "got a list of 2; `await asyncio.gather(*...)`"),
    ("io.spawn((1, 2, 3))", TypeError, "a coroutine was expected, got a tuple of 3; `await"),
    ("run(set())", NOT_A_COROUTINE, "run: a coroutine was expected, got a set of 0"),
    ("block_on(work)", TypeError, "got the function work: call it, work()"),
    ("block_on(io)", TypeError, "an awaitable was expected, got <IOThread 'io' running>"),
    ("create_task(work)", TypeError, "got the function work: call it, work()"),
    (
        "async def main():\n    wait_while(lambda: True, timeout=0)\nrun(main())",
        TimeoutError,
        "wait_while: the predicate is still true after 0 s",
    ),
    ("on()", TypeError, "missing 1 required positional argument: 'ctx'"),
    ("BigLock()", TypeError, "there is one big lock in a process: use homebound.big_lock"),
    ("AioContext(io.context.loop)", TypeError, "AioContext.attach(loop) makes one for a loop"),
    ("io.context.call_later(1, print)", AttributeError, "'AioContext' object has no attribute"),
]

TASKS: list[Row] = [
    ("io.spawn(work)", TypeError, "a coroutine was expected, got the function work: call it, work"),
    ("io.spawn(lambda: work())", TypeError, "got the function <lambda>: call it"),
    ("io.spawn(plain())", TypeError, "got None, which a plain `def` may have returned"),
    (
        "async def main():\n    me = create_task(work())\n    await me; me.wake()\nrun(main())",
        homebound.NotSuspended,
        "is finished, and only a task in suspend() can be entered or woken",
    ),
    ("asyncio.run(suspend())", homebound.ContextError, "make the task with homebound.create_task"),
    (
        "async def main():\n    await move_to(None)\nrun(main())",
        TypeError,
        "move_to() takes an AioContext or an IOThread, got None",
    ),
    ("on(IOThreadPool(2))", TypeError, "pool.next() is one of them"),
    ("io.context.bottom_half(plain())", TypeError, "bottom_half takes a function, not None"),
    ("io.context.bottom_half(work)", TypeError, "bottom_half takes a plain function, and work is"),
    (
        "AioContext.attach(None)",
        TypeError,
        "AioContext.attach takes an asyncio event loop, got None",
    ),
    (
        "AioContext.attach(asyncio.SelectorEventLoop)",
        TypeError,
        "got the class _UnixSelectorEventLoop; call it: it makes one",
    ),
    (
        (
            "async def main():\n    AioContext.attach(asyncio.get_running_loop())\n"
            "    block_on(work())\nasyncio.run(main())"
        ),
        homebound.ContextError,
        "is attached to a loop of asyncio's, which cannot be run from inside itself; use homebound",
    ),
    (
        (
            "async def main():\n    wait = create_task(asyncio.sleep(9)); await asyncio.sleep(0)\n"
            "    wait.wake()\nrun(main())"
        ),
        homebound.NotSuspended,
        "another wait ends by what it waits for, or by cancel()",
    ),
    (
        (
            "async def main():\n    wait = create_task(suspend()); await asyncio.sleep(0)\n"
            "    wait.wake(); wait.wake()\nrun(main())"
        ),
        homebound.AlreadyScheduled,
        "let one waker wake it, or use a Queue or a Semaphore, which count",
    ),
    (
        (
            "async def main():\n    async with TaskGroup() as group: pass\n"
            "    coro = work()\n    try: group.create_task(coro)\n    finally: coro.close()\n"
            "run(main())"
        ),
        RuntimeError,
        "is finished: create its tasks in its `async with` block",
    ),
    ("Queue().get_nowait()", asyncio.QueueEmpty, "the Queue is empty"),
    (
        "Queue(name='jobs').get_nowait()",
        asyncio.QueueEmpty,
        "Queue 'jobs' is empty: get() waits for an item",
    ),
    ("Queue().get_sync(timeout=0)", asyncio.QueueEmpty, "the Queue is empty: no item came in 0 s"),
    (
        "queue = Queue(1, name='jobs')\nqueue.put_sync(1); queue.put_nowait(2)",
        asyncio.QueueFull,
        "Queue 'jobs' is full: it holds maxsize=1 items",
    ),
]

THREADS: list[Row] = [
    ("io.start()", homebound.ContextError, "IOThread 'io' was started before; make another one"),
    ("block_on(work(), IOThread('a'))", homebound.ContextError, "has no context before start()"),
    ("io.stop(); io.spawn(work())", homebound.ContextClosed, "<AioContext 'io' closed> has ended"),
    (
        "async def main():\n    io.stop()\nblock_on(main(), io)",
        homebound.WouldDeadlock,
        "the thread that is to end; call it in another thread",
    ),
    ("io.stop('5')", TypeError, TIMEOUT),
    ("IOThread(3)", TypeError, "the name is 3; it must be a str; IOThreadPool(3) makes 3 threads"),
    (
        "IOThread(loop_factory=io.context.loop)",
        TypeError,
        "is called to make the loop, as asyncio.n",
    ),
    (
        "IOThread(loop_factory=plain).start()",
        TypeError,
        "must return an asyncio event loop, got None",
    ),
    (
        "Background(loop_factory=io.context.loop)",
        TypeError,
        "Background: loop_factory is called to",
    ),
    (
        "IOThreadPool(1).spawn_each(work())",
        TypeError,
        "and calls it itself; got the coroutine work",
    ),
    ("IOThreadPool(1).map(work(), [1])", TypeError, "IOThreadPool.map takes an async function"),
    ("Background('b').call(work())", TypeError, "Background.call takes an async function and its"),
    ("IOThreadPool('2')", TypeError, "IOThreadPool: n is '2'; it must be a whole number"),
    (
        "pool = IOThreadPool(1, name='web')\nwith pool: pass\nwith pool: pass",
        homebound.ContextError,
        "<IOThreadPool 'web' 1 ended> was started before; make another one",
    ),
    ("IOThreadPool(1).spawn(work())", homebound.ContextError, "call that, or begin a `with` block"),
    ("WorkerPool(0)", ValueError, "WorkerPool: max_threads is 0; it must be at least 1"),
    ("WorkerPool('2')", TypeError, "WorkerPool: max_threads is '2'; it must be a whole number"),
    ("WorkerPool(1).submit(work)", TypeError, "WorkerPool.submit calls a blocking function, and"),
    ("WorkerPool(1).submit(plain())", TypeError, "got None, perhaps the result of a call"),
    (
        "async def main():\n    await to_worker(plain())\nrun(main())",
        TypeError,
        "to_worker takes a function and its arguments, and calls it itself; got None",
    ),
    (
        "async def main():\n    await run_in(ProcessPoolExecutor, plain)\nrun(main())",
        TypeError,
        "run_in takes a concurrent.futures.Executor, got the class ProcessPoolExecutor",
    ),
    ("VCPU(plain, 0)", TypeError, "VCPU: index is"),
    ("VCPU(0, None)", TypeError, "VCPU: execute takes a function, not None"),
    (
        "Background('b').sync(work())",
        TypeError,
        "got the coroutine work(); Background.block_on wai",
    ),
    (
        "with big_lock, big_lock: pass",
        homebound.WouldDeadlock,
        "this thread holds the big lock alr",
    ),
]


@pytest.mark.parametrize(("program", "kind", "text"), RUNNING + WAITING + TASKS + THREADS)
def test_it_says_what_is_wrong_and_what_to_do(
    program: str, kind: type[BaseException], text: str, io: homebound.IOThread
):
    check_program(program, kind, text, io)


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (lambda: waits_for_it(None), "waits_for_it is async: spawn(waits_for_it()) runs it"),
        (lambda: None, "call_soon takes a function, not None"),
    ],
)
def test_what_call_soon_cannot_call_is_reported_by_the_loop(
    io: homebound.IOThread, callback: Any, said: str
):
    told: list[dict[str, Any]] = []
    io.context.loop.set_exception_handler(lambda _, about: told.append(about))
    io.context.call_soon(callback())
    homebound.block_on(asyncio.sleep(0), io)
    assert isinstance(told[0]["exception"], TypeError)
    assert said in str(told[0]["exception"])
    assert told[0]["exception"].__context__ is None  # Python's own attempt is left out


async def waits_for_it(lock: Any) -> None:
    with lock:
        pass


def test_a_lock_of_threading_that_blocks_a_home_is_reported(io: homebound.IOThread):
    told = threading.Event()
    stalls: list[homebound.Stall] = []
    lock = threading.Lock()

    async def ident() -> int:
        return threading.get_ident()

    def at_the_lock() -> bool:
        frame = sys._current_frames()[home]
        code = waits_for_it.__code__
        return frame.f_code is code and frame.f_lineno > code.co_firstlineno

    def report(stall: homebound.Stall) -> None:
        stalls.append(stall)
        told.set()

    home = homebound.block_on(ident(), io)
    with lock:
        task = io.spawn(waits_for_it(lock))
        until(at_the_lock)  # watched from then on: on its way there it may get no core for a while
        with homebound.watch_stalls(0.05, report=report):
            told.wait()
    homebound.block_on(task)
    assert "context 'io': thread 'io' blocks in one iteration" in stalls[0].message
    assert "with lock:" in stalls[0].stacks
