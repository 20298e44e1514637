"""Pursuers of a task that keeps moving: each catches it once, and leaves no record."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, IOThread, current_task, move_to
from homebound._core import pursuit
from homebound._core.entries import Errand
from homebound._core.pursuit import Pursuer, held, pursuing
from homebound.testing import settle_sync

if TYPE_CHECKING:
    from homebound import AioContext


class Catch(Pursuer):
    """An errand that records the thread in which it caught its task."""

    def __init__(self, task: homebound.Task[None]) -> None:
        super().__init__(task)
        self.where: list[str] = []

    def _act(self) -> None:
        self.where.append(threading.current_thread().name)


class Fails(Catch):
    def _act(self) -> None:
        super()._act()
        raise ValueError


def sent_after(catch: Catch, context: AioContext) -> None:
    """Post a pursuer that has missed its task, which runs in another thread: this one."""
    context._post(catch)
    while catch not in pursuing:
        pass


async def moving(io: IOThread, io2: IOThread, kind: type[Catch]) -> Catch:
    task = current_task()
    assert task is not None
    await move_to(io.context)
    catch = kind(task)
    sent_after(catch, io2.context)
    await move_to(io2.context)
    assert catch.where == ["io"]  # before the task left
    await move_to(io.context)
    return catch


def test_the_next_move_runs_a_pursuer_that_missed_the_task(io: IOThread, io2: IOThread):
    catch = homebound.run(moving(io, io2, Catch))
    settle_sync(io.context, io2.context)  # its turn in the mailbox has passed
    assert catch.where == ["io"]
    assert not pursuing


def test_a_pursuer_that_fails_is_reported_and_the_task_goes_on(io: IOThread, io2: IOThread):
    reports = []
    io.context.loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
    homebound.run(moving(io, io2, Fails))
    settle_sync(io.context, io2.context)
    assert [type(each) for each in reports] == [ValueError]
    assert not pursuing


def test_a_task_that_stays_is_caught_in_the_mailbox(io: IOThread, io2: IOThread):
    async def main() -> Catch:
        task = current_task()
        assert task is not None
        await move_to(io.context)
        catch = Catch(task)
        sent_after(catch, io2.context)  # recorded, and about to be posted to this home
        while not catch.where:
            await asyncio.sleep(0)
        return catch

    assert homebound.run(main()).where == ["io"]
    assert not pursuing


def test_a_task_that_only_moves_can_be_cancelled(io: IOThread, io2: IOThread):
    async def restless() -> None:
        while True:
            await move_to(io.context)
            await move_to(io2.context)

    async def main() -> None:
        for _ in range(50):
            task = io.spawn(restless())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    homebound.run(main())
    # A pursuer run by the task's move stays recorded until its last turn in a mailbox has passed,
    # if it had just missed the task once more.
    settle_sync(io.context, io2.context)
    assert not pursuing


def test_a_task_whose_home_has_ended_is_not_pursued(io: IOThread, io2: IOThread):
    """The pursuer, sent as the home ended, is refused there, and dropped."""
    task = io.spawn(homebound.suspend())
    homebound.block_on(asyncio.sleep(0), io.context)
    io.stop()
    with pytest.raises((ContextClosed, asyncio.CancelledError)):
        homebound.block_on(task)
    catch = Catch(task)
    io2.context._post(catch)
    homebound.block_on(asyncio.sleep(0), io2.context)
    assert catch.where == []
    assert not pursuing


def test_caught_elsewhere_while_a_thread_has_seen_it_at_home(
    monkeypatch: pytest.MonkeyPatch, io: IOThread
):
    """A waker has taken the suspended task to another home, from which it moved: it acts once."""

    async def main() -> Catch:
        task = current_task()
        assert task is not None
        catch = Catch(task)

        def look() -> AioContext | None:
            monkeypatch.undo()
            catch._run()  # as the other thread, which comes between the look and the act
            return homebound.current_context()

        monkeypatch.setattr(pursuit, "current_context", look)
        catch._run()
        return catch

    assert homebound.block_on(main(), io.context).where == ["io"]
    assert not pursuing


def test_a_request_follows_a_task_that_a_waker_takes_elsewhere(io: IOThread, io2: IOThread):
    """Between the waker's claim and the new home: the task may run there before the request."""

    async def lives() -> str:
        task = current_task()
        assert task is not None
        try:
            await homebound.suspend()
        except asyncio.CancelledError:
            assert task.uncancel() == 0
        return threading.current_thread().name

    async def cancels(task: homebound.Task[str]) -> bool:
        taken = task._claim_to_cancel(io.context)
        assert taken is io2.context
        return task.cancel()

    task = io.spawn(lives())
    settle_sync(io.context)
    task._cell.append((io2.context, 1))  # a waker's claim
    assert homebound.block_on(cancels(task), io.context)
    assert task.cancelling() == 0  # nothing was changed at the old home
    task._home = io2.context
    io2.context._post(task)
    assert homebound.block_on(task, timeout=20) == "io2"


def lured(task: homebound.Task[str], there: AioContext) -> None:
    """Have another thread schedule a suspended task elsewhere, where it may run by now."""

    def lure() -> None:
        there.schedule(task)
        homebound.block_on(asyncio.sleep(0), there)

    thread = threading.Thread(target=lure)
    thread.start()
    thread.join()


async def in_a_timeout(_io2: IOThread) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await homebound.suspend()


async def fails() -> None:
    raise ValueError


async def in_a_group_of_asyncio(_io2: IOThread) -> None:
    failed: list[Exception] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await homebound.suspend()
    except* ValueError as error:
        failed += error.exceptions
    assert len(failed) == 1


async def in_a_group(io2: IOThread) -> None:
    failed: list[Exception] = []
    try:
        async with homebound.TaskGroup() as group:
            group.create_task(fails(), home=io2.context)
            await homebound.suspend()
    except* ValueError as error:
        failed += error.exceptions
    assert len(failed) == 1


async def in_a_cancelled_group(io2: IOThread) -> None:
    async with homebound.TaskGroup() as group:
        io2.context.call_soon(group.cancel)
        await homebound.suspend()


@pytest.mark.parametrize(
    ("block", "acts"),
    [
        (in_a_timeout, (Errand, "_act")),
        (in_a_group_of_asyncio, (Errand, "_act")),
        (in_a_group, (homebound.TaskGroup, "_child_ended")),
        (in_a_cancelled_group, (homebound.TaskGroup, "_cancel_here")),
    ],
)
def test_a_task_stays_while_it_is_acted_on(
    monkeypatch: pytest.MonkeyPatch,
    io: IOThread,
    io2: IOThread,
    block: Any,
    acts: tuple[type, str],
):
    """A waker that takes the suspended task elsewhere meanwhile: it goes there afterwards."""
    act = getattr(*acts)
    tasks: list[homebound.Task[str]] = []

    def act_later(*args: Any) -> None:
        monkeypatch.undo()
        lured(tasks[0], io2.context)
        act(*args)

    async def main() -> str:
        me = current_task()
        assert me is not None
        tasks.append(me)
        await block(io2)
        assert me.cancelling() == 0
        await asyncio.sleep(0)  # and no cancellation is left
        return threading.current_thread().name

    monkeypatch.setattr(*acts, act_later)
    assert homebound.block_on(main(), io.context, timeout=20) == "io2"
    assert not held


async def tells_where() -> str:
    await homebound.suspend()
    return threading.current_thread().name


def test_a_claim_that_comes_as_the_task_is_let_go_is_the_wakers(io: IOThread, io2: IOThread):
    task = io.spawn(tells_where())
    settle_sync(io.context)
    held[task, io.context] = [None]  # the waker has found the list just before
    try:
        io2.context.schedule(task)
    finally:
        del held[task, io.context]
    assert homebound.block_on(task, timeout=20) == "io2"


def test_nothing_acts_where_a_task_is_not_yet_at_home(io: IOThread, io2: IOThread):
    """Between the waker's claim for io2 and the new home, both send a pursuer on."""
    task = io.spawn(tells_where())
    settle_sync(io.context)
    task._cell.append((io2.context, 1))  # a waker's claim
    assert task._seen_from(io.context) is io2.context
    assert task._seen_from(io2.context) is io.context
    task._home = io2.context
    assert task._seen_from(io2.context) is io2.context
    io2.context._post(task)
    assert homebound.block_on(task, timeout=20) == "io2"


def test_an_exception_as_a_task_is_let_go_leaves_it_queued(
    monkeypatch: pytest.MonkeyPatch, io: IOThread, io2: IOThread
):
    class Lures(Catch):
        def _act(self) -> None:
            super()._act()
            lured(self._task, io2.context)

    def no_memory(_task: Any, _claim: Any) -> None:
        monkeypatch.undo()
        raise MemoryError

    task = io.spawn(tells_where())
    settle_sync(io.context)
    monkeypatch.setattr(homebound.Task, "_queue_early", no_memory)
    io.context.loop.set_exception_handler(lambda *_: None)
    catch = Lures(task)  # type: ignore[arg-type]
    io.context._post(catch)
    assert homebound.block_on(task, timeout=20) == "io"
    assert catch.where == ["io"]
    assert not held
