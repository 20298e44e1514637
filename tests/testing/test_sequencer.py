"""Turns are taken in order, by tasks and threads; a party that dies leaves none waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import IOThread, block_on
from homebound.testing import (
    LoopThread,
    SequenceBroken,
    Sequencer,
    Threads,
    VirtualClock,
    settle_sync,
)

if TYPE_CHECKING:
    from collections.abc import Callable


async def take(seq: Sequencer, number: int, order: list[int]) -> None:
    async with seq(number):
        order.append(number)


def take_sync(seq: Sequencer, number: int, order: list[int]) -> None:
    with seq.sync(number):
        order.append(number)


def test_tasks_of_several_loops_and_threads(
    stock: LoopThread, io: IOThread, io2: IOThread, threads: Threads
):
    seq, order = Sequencer(), list[int]()
    waits: list[Callable[[], object]] = []
    for number in reversed(range(40)):
        if number % 4 == 0:
            waits.append(threads.start(take_sync, seq, number, order).result)
        elif number % 4 == 1:
            waits.append(stock.call(take(seq, number, order)).result)
        else:
            task = (io, io2)[number % 2].spawn(take(seq, number, order))
            waits.append(lambda task=task: block_on(task))  # type: ignore[misc]
    for wait in waits:
        wait()
    assert order == list(range(40))


def test_one_task_may_take_several(io: IOThread):
    seq, order = Sequencer(), list[int]()

    async def each_other(first: int) -> None:
        for number in range(first, 20, 2):
            await take(seq, number, order)

    async def main() -> None:
        await asyncio.gather(io.spawn(each_other(1)), each_other(0))

    homebound.run(main())
    assert order == list(range(20))


def test_a_number_is_used_once():
    seq = Sequencer()

    async def main() -> None:
        async with seq(0):
            with pytest.raises(RuntimeError, match="turn 0 was used before"):
                await take(seq, 0, [])
        with pytest.raises(RuntimeError, match="turn 0 was used before"), seq.sync(0):
            pass
        await take(seq, 1, [])  # the sequence goes on

    homebound.run(main())


def test_negative_turns_are_refused():
    with pytest.raises(ValueError, match="no turn -1"), Sequencer().sync(-1):
        pass


def test_an_exception_in_a_turn_breaks_it(io: IOThread, threads: Threads):
    seq = Sequencer()

    async def die() -> None:
        async with seq(0):
            raise KeyError("mine")

    waiting, thread = io.spawn(take(seq, 1, [])), threads.start(take_sync, seq, 2, [])
    with pytest.raises(KeyError):
        homebound.run(die())
    for wait in (lambda: block_on(waiting), thread.result):
        with pytest.raises(SequenceBroken, match=r"turn 0 died in its turn: KeyError\('mine'\)"):
            wait()
    with pytest.raises(SequenceBroken, match="turn 3 does not come"):
        take_sync(seq, 3, [])
    assert "turn 0 died" in repr(seq)


@pytest.mark.parametrize("how", ["cancelled", "its home ends"])
def test_a_party_that_dies_waiting_breaks_it(how: str, io: IOThread):
    seq = Sequencer()
    with IOThread("dying") as dying:
        victim = dying.spawn(take(seq, 1, []))
        waiting = io.spawn(take(seq, 2, []))
        settle_sync()
        if how == "cancelled":
            victim.cancel()
    with pytest.raises(SequenceBroken, match="turn 1 died waiting: CancelledError"):
        block_on(waiting)


@pytest.mark.parametrize("how", ["task", "thread"])
def test_a_turn_that_does_not_come_in_time(how: str, virtual_clock: VirtualClock, io: IOThread):
    """Under a virtual clock, a turn that can never come fails at once."""
    seq = Sequencer(timeout=60)
    take_sync(seq, 0, [])
    patient = Sequencer(timeout=None)
    io.spawn(take(patient, 1, []))
    with pytest.raises(TimeoutError, match=r"turn 2 has not come in 60 s: turn 1 was never taken"):
        take_sync(seq, 2, []) if how == "thread" else block_on(take(seq, 2, []), io.context)
    assert virtual_clock.now() == 60
    with pytest.raises(SequenceBroken, match="turn 2 was not willing to wait longer"):
        take_sync(seq, 1, [])


def test_the_waiting_parties_are_shown(io: IOThread):
    seq = Sequencer()
    tasks = [io.spawn(take(seq, number, [])) for number in (2, 1)]
    settle_sync()
    assert repr(seq) == "<Sequencer, turn 0, waiting: [1, 2]>"
    take_sync(seq, 0, [])
    for task in tasks:
        block_on(task)
    assert repr(seq) == "<Sequencer, turn 3, waiting: []>"
