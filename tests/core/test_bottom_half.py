"""Bottom halves: scheduled by any thread, often; run once, at home."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, BottomHalf, IOThread, current_context
from homebound.testing import here, settle_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Gate = Callable[[AioContext], threading.Event]


def test_scheduled_often_it_runs_once(io: IOThread, gate: Gate):
    runs: list[object] = []
    bottom_half = io.context.bottom_half(lambda: runs.append(current_context()))
    assert isinstance(bottom_half, BottomHalf)
    go_on = gate(io.context)
    for _ in range(5):
        bottom_half.schedule()
    go_on.set()
    settle_sync(io.context)
    assert runs == [io.context]
    bottom_half.schedule()
    settle_sync(io.context)
    assert runs == [io.context] * 2


def test_they_run_in_the_order_of_their_first_schedule():
    async def main() -> None:
        order: list[str] = []
        halves = {name: here().bottom_half(lambda name=name: order.append(name)) for name in "abc"}  # type: ignore[misc]
        for name in "bacab":
            halves[name].schedule()
        await asyncio.sleep(0)
        assert order == ["b", "a", "c"]

    homebound.run(main())


def test_it_may_schedule_itself_for_the_next_iteration():
    async def main() -> None:
        runs: list[int] = []

        def again() -> None:
            runs.append(len(runs))
            if len(runs) < 3:
                bottom_half.schedule()
                bottom_half.schedule()

        bottom_half = here().bottom_half(again)
        bottom_half.schedule()
        for expected in (1, 2, 3):
            assert here().poll(blocking=False)
            assert len(runs) == expected
        assert not here().poll(blocking=False)

    homebound.run(main())


def test_cancel_takes_the_schedule_back():
    async def main() -> None:
        runs: list[int] = []
        bottom_half = here().bottom_half(lambda: runs.append(1))
        bottom_half.cancel()  # nothing to cancel
        bottom_half.schedule()
        bottom_half.cancel()
        assert not here().poll(blocking=False)
        assert not runs
        bottom_half.schedule()
        assert here().poll(blocking=False)
        assert runs == [1]

    homebound.run(main())


def test_scheduled_again_after_a_cancel_it_keeps_its_place():
    async def main() -> None:
        order: list[str] = []
        first = here().bottom_half(lambda: order.append("first"))
        second = here().bottom_half(lambda: order.append("second"))
        first.schedule()
        second.schedule()
        first.cancel()
        first.schedule()
        await asyncio.sleep(0)
        assert order == ["first", "second"]

    homebound.run(main())


def test_closed_it_never_runs_again():
    async def main() -> None:
        runs: list[int] = []
        bottom_half = here().bottom_half(lambda: runs.append(1))
        bottom_half.schedule()
        bottom_half.close()
        bottom_half.schedule()
        bottom_half.close()
        assert not here().poll(blocking=False)
        assert not runs

    homebound.run(main())


def test_it_may_close_itself():
    async def main() -> None:
        runs: list[int] = []

        def once() -> None:
            runs.append(1)
            bottom_half.schedule()
            bottom_half.close()

        bottom_half = here().bottom_half(once)
        bottom_half.schedule()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert runs == [1]

    homebound.run(main())


def test_one_that_polls_lets_the_others_run_first():
    async def main() -> None:
        order: list[str] = []
        context = here()

        def outer() -> None:
            order.append("outer begins")
            late.schedule()
            assert context.poll(blocking=False)
            order.append("outer ends")

        late = context.bottom_half(lambda: order.append("late"))
        context.bottom_half(outer).schedule()
        context.bottom_half(lambda: order.append("queued before")).schedule()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["outer begins", "queued before", "late", "outer ends"]

    homebound.run(main())


def test_one_that_schedules_itself_runs_in_the_poll_it_makes():
    async def main() -> None:
        order: list[str] = []
        context = here()

        def nest() -> None:
            depth = len(order)
            order.append(f"in {depth}")
            if depth < 2:
                bottom_half.schedule()
                assert context.poll(blocking=False)
            order.append(f"out {depth}")
            if not depth:
                done.set_result(None)

        done = context.loop.create_future()
        bottom_half = context.bottom_half(nest)
        bottom_half.schedule()
        await done
        assert order == ["in 0", "in 1", "in 2", "out 2", "out 1", "out 0"]

    homebound.run(main())


def test_one_that_raises_can_be_scheduled_again():
    async def main() -> None:
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        bottom_half = here().bottom_half(lambda: int("x"))
        for _ in range(2):
            bottom_half.schedule()
            await asyncio.sleep(0)
        assert [type(report["exception"]) for report in reports] == [ValueError] * 2

    homebound.run(main())


def test_the_last_of_many_schedules_is_seen(io: IOThread, in_thread: InThread):
    """However the threads interleave with the run, a run begins after the last schedule."""
    workers, rounds = 4, 100
    flags = [0] * workers
    seen = [0] * workers
    runs: list[int] = []
    barrier = threading.Barrier(workers)

    def look() -> None:
        runs.append(1)
        seen[:] = flags

    bottom_half = io.context.bottom_half(look)

    def work(who: int) -> None:
        barrier.wait()
        for number in range(rounds):
            flags[who] = number + 1
            bottom_half.schedule()

    for done in [in_thread(work, who) for who in range(workers)]:
        done.result(30)
    settle_sync(io.context)
    assert seen == [rounds] * workers
    assert 1 <= len(runs) <= workers * rounds


def test_any_thread_cancels_and_closes(io: IOThread, gate: Gate, in_thread: InThread):
    runs: list[int] = []
    cancelled, closed = (io.context.bottom_half(lambda: runs.append(1)) for _ in range(2))
    go_on = gate(io.context)
    cancelled.schedule()
    closed.schedule()
    in_thread(cancelled.cancel).result(10)
    in_thread(closed.close).result(10)
    go_on.set()
    settle_sync(io.context)
    assert not runs
    in_thread(cancelled.schedule).result(10)
    settle_sync(io.context)
    assert runs == [1]


def test_on_a_context_that_has_ended():
    with homebound.IOThread() as io:
        context = io.context
        bottom_half = context.bottom_half(lambda: None)
    for _ in range(2):
        with pytest.raises(homebound.ContextClosed, match="has ended"):
            bottom_half.schedule()
    bottom_half.cancel()
    bottom_half.close()
    bottom_half.schedule()  # a closed one asks for nothing


def test_on_a_context_that_ended_before_it_ran():
    loop = homebound.new_event_loop()
    bottom_half = homebound.AioContext.attach(loop).bottom_half(lambda: None)
    bottom_half.schedule()
    loop.close()
    for _ in range(2):
        with pytest.raises(homebound.ContextClosed, match="has ended"):
            bottom_half.schedule()


def test_repr_shows_its_state(io: IOThread, gate: Gate):
    bottom_half = io.context.bottom_half(print)
    assert "idle" in repr(bottom_half)
    go_on = gate(io.context)
    bottom_half.schedule()
    assert "scheduled" in repr(bottom_half)
    bottom_half.close()
    assert "closed" in repr(bottom_half)
    assert "'io'" in repr(bottom_half)
    go_on.set()
