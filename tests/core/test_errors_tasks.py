"""Wrong uses of tasks: what is called, and what is said."""

from __future__ import annotations

import asyncio
import threading

import pytest

import homebound
from homebound import (
    AlreadyScheduled,
    ContextClosed,
    ContextError,
    IOThread,
    NotSuspended,
    Task,
    block_on,
    run,
)

from .wrong_uses import WrongUses, started, suspended, work

WRONG = WrongUses()

# Making tasks.


@WRONG.say(TypeError, "a coroutine was expected, got the function work: call it, work()")
def spawn_a_function(io: IOThread, _io2: IOThread) -> None:
    io.spawn(work)  # type: ignore[arg-type]


@WRONG.say(TypeError, "a coroutine was expected, got <Future pending>; `await` it in")
def spawn_a_future(io: IOThread, _io2: IOThread) -> None:
    future = io.context.loop.create_future()
    io.spawn(future)  # type: ignore[arg-type]


@WRONG.say(TypeError, "a contextvars.Context was expected, got dict")
def spawn_in_a_dict_of_variables(io: IOThread, _io2: IOThread) -> None:
    coro = work()
    try:
        io.spawn(coro, context={})  # type: ignore[arg-type]
    finally:
        coro.close()


@WRONG.say(ContextError, "IOThread 'later' has no context before start()")
def spawn_before_start(_io: IOThread, _io2: IOThread) -> None:
    IOThread("later").spawn(work())


@WRONG.say(ContextClosed, "nothing can be scheduled, moved or spawned there any more")
def spawn_after_the_end(io: IOThread, _io2: IOThread) -> None:
    io.stop()
    io.spawn(work())


@WRONG.say(ContextError, "no context is current in thread 'MainThread'")
def create_task_nowhere(_io: IOThread, _io2: IOThread) -> None:
    homebound.create_task(work())


@WRONG.say(TypeError, "create_task: home takes an AioContext or an IOThread, got 'io0'")
def create_task_at_a_name(_io: IOThread, _io2: IOThread) -> None:
    homebound.create_task(work(), home="io0")  # type: ignore[arg-type]


@WRONG.say(RuntimeError, "has not been entered: write `async with TaskGroup() as group:`")
def create_task_in_a_group_not_entered(_io: IOThread, _io2: IOThread) -> None:
    coro = work()
    try:
        homebound.TaskGroup().create_task(coro)
    finally:
        coro.close()


@WRONG.say(RuntimeError, "has already been entered")
def enter_a_group_twice(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        async with homebound.TaskGroup() as group, group:
            pass

    try:
        run(main())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


@WRONG.say(ContextError, "no context is current in thread 'MainThread'")
def running_context_nowhere(_io: IOThread, _io2: IOThread) -> None:
    homebound.running_context()


# Waking.


@WRONG.say(NotSuspended, "wake: task 'done' is finished; it cannot be entered again")
def wake_a_finished_task(io: IOThread, _io2: IOThread) -> None:
    task = io.spawn(work(), name="done")
    block_on(task)
    task.wake()


@WRONG.say(NotSuspended, "is running, and only a task in suspend() can be entered or woken")
def wake_the_running_task(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        me = homebound.current_task()
        assert me is not None
        me.wake()

    run(main())


@WRONG.say(NotSuspended, "task 'waiter' waits for <Future pending>, and only a task in suspend()")
def wake_a_task_that_waits_for_a_future(_io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        task = homebound.create_task(asyncio.sleep(3600), name="waiter")
        await asyncio.sleep(0)
        try:
            task.wake()
        finally:
            task.cancel()

    run(main())


@WRONG.say(AlreadyScheduled, "has already scheduled task 'sleeper' in <AioContext 'io'>")
def wake_twice(io: IOThread, _io2: IOThread) -> None:
    go_on = threading.Event()
    task = started(suspended(), io, "sleeper")
    io.context.call_soon(go_on.wait, 10)
    try:
        task.wake()
        task.wake()
    finally:
        go_on.set()


@WRONG.say(
    AlreadyScheduled,
    "wake: the call that made it (spawn, create_task) has already scheduled task 'new'",
)
def wake_a_task_that_has_not_begun(io: IOThread, _io2: IOThread) -> None:
    go_on = threading.Event()
    io.context.call_soon(go_on.wait, 10)
    task = io.spawn(work(), name="new")
    try:
        task.wake()
    finally:
        go_on.set()


@WRONG.say(NotSuspended, "Task.wake(): task 'homeless' has no home yet; start it")
def wake_a_task_without_a_home(_io: IOThread, _io2: IOThread) -> None:
    task = Task(work(), name="homeless")
    try:
        task.wake()
    finally:
        task.cancel()


@WRONG.say(TypeError, "AioContext.spawn makes one of a coroutine")
def schedule_a_coroutine(io: IOThread, _io2: IOThread) -> None:
    coro = work()
    try:
        io.context.schedule(coro)  # type: ignore[arg-type]
    finally:
        coro.close()


@WRONG.say(TypeError, "takes a homebound.Task, got <Task pending")
def enter_an_asyncio_task(io: IOThread, _io2: IOThread) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        io.context.enter(task)  # type: ignore[arg-type]

    asyncio.run(main())


@pytest.mark.parametrize("case", WRONG)
def test_it_says_what_is_wrong_and_goes_on(case: str, io: IOThread, io2: IOThread):
    WRONG.check(case, io, io2)
