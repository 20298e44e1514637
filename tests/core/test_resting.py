"""A loop that is dropped without a close is collected with its pending tasks, as asyncio's."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from typing import TYPE_CHECKING, Any, cast

import pytest

import homebound
from homebound import AioContext, IOThread, block_on
from homebound._core import context
from homebound._core.resting import _pace
from homebound._os.clock import monotonic
from homebound.testing import no_leaks, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

Steps = list[str]


async def await_future(steps: Steps) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        steps.append("cleanup")


async def await_sleep(steps: Steps) -> None:
    try:
        await asyncio.sleep(10_000)
    finally:
        steps.append("cleanup")


async def await_wake(steps: Steps) -> None:
    try:
        await homebound.suspend()
    finally:
        steps.append("cleanup")


async def await_lock(steps: Steps) -> None:
    lock = homebound.Lock()
    await lock.acquire()
    try:
        await lock.acquire()
    finally:
        steps.append("cleanup")


async def await_task(steps: Steps) -> None:
    await asyncio.create_task(await_future(steps))


WAITS = [await_future, await_sleep, await_wake, await_lock, await_task]


@pytest.fixture
def unclosed() -> Iterator[list[str]]:
    """The warnings about event loops given meanwhile."""
    loops: list[str] = []
    others: list[str] = []

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = str(message)
        if "unclosed event loop" in text:
            loops.append(text)
        # The collector takes objects in any order: a loop's sockets may come before the loop, and a
        # coroutine before the task that never began it.
        elif not ("unclosed <socket" in text or "never awaited" in text):
            others.append(text)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield loops
    assert others == []


@pytest.fixture(autouse=True)
def _is_read_at_once() -> None:
    """Wait until a stop reads the record, also after a test with thousands of tasks."""
    until(lambda: monotonic() > _pace.again_at)


class Dropped:
    """A loop that has run and was dropped, and what it left."""

    def __init__(self, *coros: Coroutine[Any, Any, Any], run: bool = True) -> None:
        self.reports: list[str] = []
        loop = homebound.new_event_loop()
        loop.set_exception_handler(lambda _, about: self.reports.append(about["message"]))
        tasks = [loop.create_task(coro) for coro in coros]
        if run:
            loop.run_until_complete(asyncio.sleep(0.001))
        assert asyncio.all_tasks(loop) >= set(tasks)
        self.loop: weakref.ref[Any] = weakref.ref(loop)
        self.context: weakref.ref[Any] = weakref.ref(AioContext.attach(loop))
        self.tasks: list[weakref.ref[Any]] = [weakref.ref(task) for task in tasks]

    def gone(self) -> bool:
        """Return whether all of it is gone."""
        return not any(ref() for ref in (self.loop, self.context, *self.tasks))


@pytest.mark.parametrize("wait", WAITS)
def test_it_is_collected_with_its_tasks(
    wait: Callable[[Steps], Coroutine[Any, Any, None]], unclosed: list[str]
):
    steps: Steps = []
    before = no_leaks.open_files()
    dropped = Dropped(wait(steps), wait(steps))
    until(lambda: gc.collect() >= 0 and dropped.gone())
    assert steps == ["cleanup"] * 2
    tasks = 4 if wait is await_task else 2
    assert dropped.reports == ["Task was destroyed but it is pending!"] * tasks
    assert len(unclosed) == 1
    assert no_leaks.open_files().keys() <= before.keys()


def test_many_are_collected_in_any_order(unclosed: list[str]):
    """A loop may be finalised after its sockets, which were collected with it."""
    before = no_leaks.open_files()
    dropped = [Dropped(await_future([]), await_sleep([])) for _ in range(20)]
    until(lambda: gc.collect() >= 0 and all(each.gone() for each in dropped))
    assert len(unclosed) == 20
    assert no_leaks.open_files().keys() <= before.keys()


def test_one_that_never_ran_is_collected_once_there_is_another(unclosed: list[str]):
    dropped = Dropped(await_future([]), run=False)
    homebound.new_event_loop().close()
    until(lambda: gc.collect() >= 0 and dropped.gone())
    assert dropped.reports == ["Task was destroyed but it is pending!"]
    assert unclosed


def test_so_it_is_while_there_are_thousands_of_tasks_elsewhere(unclosed: list[str], io: IOThread):
    async def wait_many() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2000):
                group.create_task(homebound.suspend())

    io.spawn(wait_many())
    until(lambda: io.context.stats().tasks > 2000)
    dropped = [Dropped(await_future([])) for _ in range(10)]

    def gone() -> bool:
        homebound.new_event_loop().close()
        gc.collect()
        return all(each.gone() for each in dropped)

    until(gone)
    assert len(unclosed) == 10


def test_its_tasks_are_known_and_kept_while_it_is_referred_to():
    steps: Steps = []
    loop = homebound.new_event_loop()

    async def work() -> str:
        steps.append("begun")
        await asyncio.sleep(0)
        steps.append("resumed")
        await homebound.suspend()
        return "done"

    async def look() -> set[Any]:
        return asyncio.all_tasks()

    name = loop.create_task(work()).get_name()
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
        gc.collect()
        assert [task.get_name() for task in asyncio.all_tasks(loop)] == [name]
        assert AioContext.attach(loop).stats().tasks == 1
        assert len(loop.run_until_complete(look())) == 2
    assert steps == ["begun", "resumed"]
    (task,) = cast("set[homebound.Task[str]]", asyncio.all_tasks(loop))
    task.wake()
    assert loop.run_until_complete(task) == "done"
    assert not asyncio.all_tasks(loop)
    gone = weakref.ref(task)
    del task
    gc.collect()
    assert gone() is None
    loop.close()


def test_a_stopped_loop_abandons_its_tasks_when_it_is_closed():
    loop = homebound.new_event_loop()
    task = loop.create_task(await_future([]))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert isinstance(task.exception(), homebound.ContextClosed)
    assert not asyncio.all_tasks(loop)


@pytest.mark.parametrize("how", ["schedule", "enter"])
def test_a_task_that_goes_elsewhere_is_kept_there(how: str, io: IOThread, unclosed: list[str]):
    steps: Steps = []

    async def move() -> None:
        await homebound.suspend()
        steps.append("moved")
        await homebound.suspend()
        steps.append("woken")

    dropped = Dropped(move())
    task: Any = dropped.tasks[0]()
    if how == "schedule":
        io.context.schedule(task)
    else:

        async def enter(task: Any) -> None:
            io.context.enter(task)

        block_on(io.spawn(enter(task)))
    del task
    until(lambda: "moved" in steps)
    until(lambda: gc.collect() >= 0 and dropped.loop() is None)
    assert not dropped.reports
    task = dropped.tasks[0]()
    assert task in asyncio.all_tasks(io.context.loop)
    task.wake()
    block_on(task)
    assert steps == ["moved", "woken"]
    assert len(unclosed) == 1


def test_they_count_as_unfinished():
    loop = homebound.new_event_loop()

    def leave_one() -> None:
        with no_leaks():
            loop.create_task(await_wake([]))
            loop.run_until_complete(asyncio.sleep(0))

    with pytest.raises(AssertionError, match=r"tasks left: .*await_wake"):
        leave_one()
    loop.close()


def test_a_loop_that_an_exception_leaves_half_made(monkeypatch: pytest.MonkeyPatch):
    """The next one, which looks for tasks to rest, does not trip over its context."""
    half_made: list[AioContext] = []

    def fail(made: AioContext, _callback: object) -> Any:
        half_made.append(made)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(context, "BottomHalf", fail)
        with pytest.raises(MemoryError):
            homebound.new_event_loop()
    homebound.new_event_loop().close()
    half_made[0].loop.close()
