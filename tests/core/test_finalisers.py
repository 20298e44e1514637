"""A finaliser comes in at any line of a call of ours, and calls the same on the same object."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextError, IOThread, block_on
from homebound.testing import settle_sync, until

from ..locks.interruptions import (
    Interruption,
    collector,
    in_collection,
    in_finaliser,
    in_weak_callback,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 10


async def answer() -> int:
    return 42


class Scene:
    """`use` is interrupted by `report`; `check` is called when both have returned."""

    use: Callable[[], object]
    report: Callable[[], object]
    check: Callable[[], object]

    def __init__(self, kind: str, io: IOThread) -> None:
        self.io = io
        self.context = io.context
        self.log: list[Any] = []
        getattr(self, f"_{kind}")()

    def _twice(self, act: Callable[[], object], check: Callable[[], object]) -> None:
        self.use = self.report = act
        self.check = check

    def _logged(self, *expected: list[Any]) -> Callable[[], object]:
        def check() -> None:
            until(lambda: len(self.log) >= len(expected[0]))
            settle_sync(self.context)
            assert self.log in expected, self.log

        return check

    def _suspended(self) -> homebound.Task[Any]:
        async def sleeper() -> None:
            await homebound.suspend()
            self.log.append("awake")

        task = self.io.spawn(sleeper())
        block_on(self.io.spawn(answer()))
        return task

    def _wake(self) -> None:
        task = self._suspended()

        def wake() -> None:
            try:
                task.wake()
            except ContextError as error:
                self.log.append(type(error).__name__)

        def check() -> None:
            block_on(task, timeout=PATIENCE)
            self.log.remove("awake")
            # Nothing is said if the task was running just then, and might have suspended again.
            assert self.log in (["AlreadyScheduled"], ["NotSuspended"], []), self.log

        self._twice(wake, check)

    def _wake_of_two(self) -> None:
        tasks = [self._suspended(), self._suspended()]
        self.use, self.report = tasks[0].wake, tasks[1].wake
        self.check = self._logged(["awake", "awake"])

    def _wake_and_cancel(self) -> None:
        task = self._suspended()

        def wake() -> None:
            try:
                task.wake()
            except ContextError:
                pass

        def check() -> None:
            until(task.done)

        self.use, self.report, self.check = wake, task.cancel, check

    def _schedule(self) -> None:
        task = self._suspended()

        def schedule() -> None:
            try:
                self.context.schedule(task)
            except ContextError as error:
                self.log.append(type(error).__name__)

        self._twice(schedule, lambda: block_on(task, timeout=PATIENCE))

    def _block_on(self) -> None:
        def use() -> None:
            self.log.append(block_on(answer(), self.context, timeout=PATIENCE))

        self._twice(use, self._logged([42, 42]))

    def _post_and_block_on(self) -> None:
        """The finaliser waits for the home that was about to be woken."""
        self.use = lambda: self.context.call_soon(self.log.append, 42)

        def report() -> None:
            self.log.append(block_on(answer(), self.context, timeout=PATIENCE))

        self.report = report
        self.check = self._logged([42, 42])

    def _wake_and_block_on(self) -> None:
        task = self._suspended()
        self.use = task.wake

        def report() -> None:
            block_on(answer(), self.context, timeout=PATIENCE)

        self.report = report
        self.check = lambda: block_on(task, timeout=PATIENCE)

    def _event_and_block_on(self) -> None:
        event = homebound.Event()
        task = self.io.spawn(event.wait())
        block_on(self.io.spawn(answer()))
        self.use = event.set

        def report() -> None:
            block_on(answer(), self.context, timeout=PATIENCE)

        self.report = report
        self.check = lambda: block_on(task, timeout=PATIENCE)

    def _bottom_half(self) -> None:
        half = self.context.bottom_half(partial(self.log.append, 1))

        def check() -> None:
            self._logged([1], [1, 1])()
            half.close()

        self._twice(half.schedule, check)

    def _call_soon(self) -> None:
        self._twice(lambda: self.context.call_soon(self.log.append, 1), self._logged([1, 1]))

    def _call_soon_threadsafe(self) -> None:
        post = self.context.loop.call_soon_threadsafe
        self._twice(lambda: post(self.log.append, 1), self._logged([1, 1]))

    def _spawn(self) -> None:
        async def work() -> None:
            self.log.append(1)

        self._twice(lambda: self.io.spawn(work()), self._logged([1, 1]))

    def _cancel(self) -> None:
        task = self._suspended()

        def check() -> None:
            until(task.done)
            assert task.cancelled()

        self._twice(task.cancel, check)

    def _done_callback(self) -> None:
        task = self.io.spawn(answer())
        self._twice(
            lambda: task.add_done_callback(lambda _: self.log.append(1)), self._logged([1, 1])
        )

    def _notify(self) -> None:
        self._twice(self.context.notify, lambda: settle_sync(self.context))

    def _kick(self) -> None:
        self._twice(homebound.kick, lambda: settle_sync(self.context))


HERE = [name[1:] for name in vars(Scene) if name[0] == "_" and name[1] != "_"]
HERE = [name for name in HERE if name not in ("twice", "logged", "suspended")]
WAYS = [None, in_finaliser, in_weak_callback, in_collection]


def interrupt_each(
    io: IOThread, kind: str, way: Any, call: Callable[[Callable[[], object]], object]
) -> None:
    """Interrupt at each line in turn, in a thread where `call` calls what it is given."""
    at = 0
    while True:
        scene = Scene(kind, io)
        reported: list[int] = []

        def report() -> None:
            try:
                scene.report()  # noqa: B023  (it is called in this turn)
            finally:
                reported.append(1)  # noqa: B023

        interruption = Interruption(at, partial(way, report) if way else report)
        call(partial(interruption.run, scene.use))
        if way is in_collection:
            gc.set_threshold(0)
            while interruption.happened and not reported:
                gc.collect()  # without a GIL a call does nothing while another thread collects
        if not interruption.happened:
            scene.report()
        try:
            scene.check()
        except BaseException as error:
            error.add_note(f"interrupted at {interruption.where}")
            raise
        if not interruption.happened:
            break
        at += 1
    assert at > 0


@pytest.fixture(scope="module", autouse=True)
def nothing_else_to_collect() -> Iterator[None]:
    """Have collections take little time: a run of all tests has a large heap by now."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__ if way else "called")
def way(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The way in which the finaliser comes to be called."""
    if request.param is None:
        yield None
        return
    with collector():
        yield request.param


@pytest.mark.parametrize("kind", HERE)
def test_in_another_thread(kind: str, way: Any, io: IOThread):
    interrupt_each(io, kind, way, lambda act: act())


@pytest.mark.parametrize("way", WAYS[:2], indirect=True)
@pytest.mark.parametrize("kind", HERE)
def test_at_home(kind: str, way: Any, io: IOThread):
    """In a callback there, between tasks."""

    def call(act: Callable[[], object]) -> None:
        done: list[int] = []

        def callback() -> None:
            try:
                act()
            finally:
                done.append(1)

        io.context.call_soon(callback)
        until(lambda: done)

    interrupt_each(io, kind, way, call)


@pytest.mark.parametrize("way", WAYS[:2], indirect=True)
@pytest.mark.parametrize("kind", HERE)
def test_in_a_task(kind: str, way: Any, io: IOThread):
    async def task(act: Callable[[], object]) -> None:
        act()

    interrupt_each(io, kind, way, lambda act: block_on(io.spawn(task(act)), timeout=PATIENCE * 2))


# Not `in_collection`: that may come at the home, whose loop cannot be run from inside itself.
@pytest.mark.parametrize("way", WAYS[:3], indirect=True)
@pytest.mark.parametrize("kind", [kind for kind in HERE if kind != "call_soon_threadsafe"])
def test_a_home_on_a_foreign_loop(kind: str, way: Any):
    with IOThread(loop_factory=asyncio.SelectorEventLoop) as foreign:
        interrupt_each(foreign, kind, way, lambda act: act())


class _Turns(float):
    """A time at whose comparison a finaliser comes in, which turns the loop."""

    act: Callable[[], object] | None = None

    def __ge__(self, other: float) -> bool:
        act, self.act = self.act, None
        is_later = float(self) >= other
        if act is not None:
            act()
        return is_later


@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_finaliser_turns_the_loop_as_a_timer_is_due(others: int, io: IOThread):
    """The timer rings once, in there; those behind it do not."""

    async def work() -> list[str]:
        loop = asyncio.get_running_loop()
        rang: list[str] = []
        rung = asyncio.Event()
        for _ in range(others):
            loop.call_later(3600, rang.append, "later")
        when = _Turns(loop.time())
        when.act = lambda: block_on(asyncio.sleep(0))
        loop.call_at(when, lambda: (rang.append("due"), rung.set()))
        await rung.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        return rang

    assert block_on(io.spawn(work()), timeout=PATIENCE) == ["due"]
