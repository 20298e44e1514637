"""A task that another thread is about to queue is not queued by the home as well.

A home that ends looks, again and again, for tasks that a signal handler's exception has kept from
their queue; and a step that was cut short is brought to its end. Another thread may have claimed a
task by then, moved it here, or ended what it awaits, and not have queued it yet. Here that thread
stands at this very line meanwhile.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, Task, move_to
from homebound._core.resumption import find_lost
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 20  # seconds


class Stop:
    """Stops the thread that enters it at a line of a function, before that line runs."""

    def __init__(
        self, function: Callable[..., object], line: str, *, of: str | None = None
    ) -> None:
        lines, first = inspect.getsourcelines(function)
        self._line = first + [each.strip() for each in lines].index(line)
        self._code: Any = function.__code__
        self._of = of  # the name of the task there, if it matters
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self.error: BaseException | None = None  # to raise there

    @contextmanager
    def here(self) -> Iterator[None]:
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)

    def _call(self, frame: Any, _event: str, _arg: Any) -> Any:
        if frame.f_code is not self._code:
            return None
        if self._of is not None and frame.f_locals["self"].get_name() != self._of:
            return None
        return self._at

    def _at(self, frame: Any, event: str, _arg: Any) -> Any:
        if event == "line" and frame.f_lineno == self._line and not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(LIMIT)
            if self.error is not None:
                raise self.error
        return self._at


def say_exceptions(home: homebound.AioContext, said: list[str]) -> None:
    home.loop.set_exception_handler(lambda _, about: said.append(type(about["exception"]).__name__))


class InterruptError(Exception):
    """What a signal handler raises."""


@pytest.fixture
def io() -> Iterator[IOThread]:
    with IOThread("io") as io:
        yield io


async def look_and_let_go(stop: Stop) -> None:
    """Look for lost tasks while the other thread stands there, and run what is queued."""
    assert stop.reached.wait(LIMIT)
    for _ in range(3):
        find_lost(homebound.running_context())
        await asyncio.sleep(0)
    stop.go_on.set()


async def goes_on(said: list[str]) -> None:
    """Suspend; a task that stands in the queue twice would not be woken by `wake_at_last`."""
    said.append("goes on")
    await homebound.suspend()
    said.append("woken")


async def wake_at_last(task: Task[None], said: list[str]) -> None:
    await asyncio.sleep(0.05)
    said.append("wakes it")
    task.wake()
    await task


RIGHT = ["goes on", "wakes it", "woken"]


def test_a_wake_from_another_thread():
    stop = Stop(Task._wake_in, "home._ready.append(self)")
    said: list[str] = []

    async def work() -> None:
        await homebound.suspend()
        await goes_on(said)

    async def main() -> None:
        task = homebound.create_task(work())
        await asyncio.sleep(0)

        def wake() -> None:
            with stop.here():
                task.wake()

        thread = threading.Thread(target=wake)
        thread.start()
        await look_and_let_go(stop)
        await wake_at_last(task, said)
        thread.join()

    homebound.run(main())
    assert said == RIGHT


def test_a_task_of_another_thread():
    stop = Stop(homebound.AioContext.spawn, "self._post(task)")
    said: list[str] = []
    tasks: list[Task[None]] = []

    async def main() -> None:
        home = homebound.running_context()

        def spawn() -> None:
            with stop.here():
                tasks.append(home.spawn(goes_on(said)))

        thread = threading.Thread(target=spawn)
        thread.start()
        await look_and_let_go(stop)
        await asyncio.to_thread(thread.join)
        await wake_at_last(tasks[0], said)

    homebound.run(main())
    assert said == RIGHT


def test_the_end_of_a_task_elsewhere(io: IOThread):
    stop = Stop(Task._heard, "home._ready.append(self)", of="waiter")
    said: list[str] = []

    async def work() -> None:
        await io.spawn(asyncio.sleep(0.05))
        await goes_on(said)

    def begin() -> None:
        sys.settrace(stop._call)

    async def main() -> None:
        io.context.call_soon(begin)
        task = homebound.create_task(work(), name="waiter")
        await asyncio.sleep(0)
        await look_and_let_go(stop)
        await wake_at_last(task, said)

    homebound.run(main())
    assert said == RIGHT


def test_a_move_here(io: IOThread):
    stop = Stop(Task._wait_for, "yielded._ready.append(self)", of="traveller")
    said: list[str] = []

    async def work(home: homebound.AioContext) -> None:
        await move_to(io.context)
        sys.settrace(stop._call)
        await move_to(home)
        await goes_on(said)

    async def main() -> None:
        home = homebound.running_context()
        task = homebound.create_task(work(home), name="traveller")
        await asyncio.sleep(0)
        await look_and_let_go(stop)
        await wake_at_last(task, said)

    homebound.run(main())
    assert said == RIGHT


def test_an_exception_after_a_move_and_back(io: IOThread):
    """A step is cut short as it has moved its task, which is on its way back by then."""
    cut = Stop(Task._wait_for, "if yielded._bell:", of="traveller")
    cut.error = InterruptError()
    back = Stop(Task._wait_for, "yielded._ready.append(self)", of="traveller")
    said: list[str] = []

    async def work(home: homebound.AioContext) -> None:
        sys.settrace(cut._call)
        await move_to(io.context)
        sys.settrace(back._call)
        await move_to(home)
        await goes_on(said)

    def let_it_come_back() -> None:
        assert cut.reached.wait(LIMIT)
        io.context.call_soon(int)  # wakes it; the other thread has not
        assert back.reached.wait(LIMIT)
        cut.go_on.set()

    async def main() -> None:
        home = homebound.running_context()
        say_exceptions(home, said)
        helper = threading.Thread(target=let_it_come_back)
        helper.start()
        task = homebound.create_task(work(home), name="traveller")
        await asyncio.sleep(0.05)
        sys.settrace(None)
        back.go_on.set()
        await wake_at_last(task, said)
        helper.join()

    homebound.run(main())
    assert said == ["InterruptError", *RIGHT]


def test_an_exception_after_a_suspension_that_was_ended_elsewhere(io: IOThread):
    """A step is cut short as it has suspended; the task has run elsewhere, and is to come back."""
    cut = Stop(Task._run, "if cell[0] is not SUSPENDED:  # the wake came first", of="traveller")
    cut.error = InterruptError()
    back = Stop(Task._wait_for, "yielded._ready.append(self)", of="traveller")
    said: list[str] = []

    async def work(home: homebound.AioContext) -> None:
        await homebound.suspend()
        sys.settrace(back._call)
        await move_to(home)
        await goes_on(said)

    async def main() -> None:
        home = homebound.running_context()
        say_exceptions(home, said)

        def take_and_return() -> None:
            assert cut.reached.wait(LIMIT)
            io.context.schedule(task)
            assert back.reached.wait(LIMIT)
            cut.go_on.set()

        sys.settrace(cut._call)
        task = homebound.create_task(work(home), name="traveller")
        helper = threading.Thread(target=take_and_return)
        helper.start()
        await asyncio.sleep(0.05)
        sys.settrace(None)
        back.go_on.set()
        await wake_at_last(task, said)
        helper.join()

    homebound.run(main())
    assert said == ["InterruptError", *RIGHT]


def test_a_wake_that_this_thread_was_to_queue():
    """It is lost, and the home finds it."""
    said: list[str] = []

    async def work() -> None:
        await homebound.suspend()
        await goes_on(said)

    async def main() -> None:
        home = homebound.running_context()
        task = homebound.create_task(work())
        await asyncio.sleep(0)
        assert task._claim(home)
        find_lost(home)
        await wake_at_last(task, said)

    homebound.run(main())
    assert said == RIGHT
    until(lambda: threading.active_count() == 1)
