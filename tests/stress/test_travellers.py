"""Tasks passed round between homes, woken, scheduled and cancelled at random from everywhere.

Nothing is lost: each wait that is ended returns, each cancellation is delivered. Nothing runs away
from its home: after each resumption the task looks where it is.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextError, IOThread, big_lock, current_context, current_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from homebound.testing import Stress


class Ticket:
    """One wait of a traveller. The party that takes it ends it: the flag first, then the wake."""

    __slots__ = ("called", "traveller")

    def __init__(self, traveller: Traveller) -> None:
        self.traveller = traveller
        self.called = False


class World:
    def __init__(self, contexts: list[AioContext], idents: list[int | None]) -> None:
        self.contexts = contexts
        self.ident_of = dict(zip(contexts, idents, strict=True))
        self.tickets: deque[Ticket] = deque()
        self.travellers: list[Traveller] = []
        self.waking = True  # plain threads go on
        self.ending = False  # travellers end when they see the flag
        self.wrong: list[str] = []

    def end_one_wait(self, rng: random.Random) -> bool:
        try:
            ticket = self.tickets.popleft()
        except IndexError:
            return False
        task = ticket.traveller.task
        ticket.called = True
        try:
            if rng.random() < 0.5:
                task.wake()
            else:
                rng.choice(self.contexts).schedule(task)
        except ContextError:
            pass  # a wake left over from a cancelled wait is on its way: it ends this wait too
        return True


class Traveller:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.created = self.completed = self.broken_off = 0
        self.delivered = 0  # cancellations
        self.begun = False
        self.task: homebound.Task[None]

    async def live(self) -> None:
        me = current_task()
        assert me is not None
        self.begun = True
        actions: list[Callable[[], Any]] = [self.wait, self.move, self.pause, self.work, self.help]
        weights = [6, 6, 3, 1, 3]
        while not self.world.ending:
            (action,) = self.rng.choices(actions, weights)
            try:
                await action()
            except asyncio.CancelledError:
                pass
            self.look()
            while me.cancelling():
                me.uncancel()
                self.delivered += 1

    def look(self) -> None:
        context = current_context()
        ident = self.world.ident_of.get(context)  # type: ignore[arg-type]
        if context is not self.task.home or current_task() is not self.task:
            self.world.wrong.append(f"{self.task} runs in {context}")
        if ident is not None and ident != threading.get_ident():
            self.world.wrong.append(f"{self.task} runs in another thread than {context}'s")
        if ident is None and not big_lock.held():
            self.world.wrong.append(f"{self.task} runs in main without the lock")

    async def wait(self) -> None:
        ticket = Ticket(self)
        self.created += 1
        self.world.tickets.append(ticket)
        try:
            while not ticket.called:
                await homebound.suspend()
                self.look()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        self.completed += 1

    async def move(self) -> None:
        target = self.rng.choice(self.world.contexts)
        await homebound.move_to(target)
        assert current_context() is target

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.choice([0, 0, 0.0001]))

    async def work(self) -> None:
        value = self.rng.random()
        assert await homebound.to_worker(lambda: value) == value

    async def help(self) -> None:
        """Wake a traveller from a task, or from a callback."""
        if self.rng.random() < 0.5:
            self.world.end_one_wait(self.rng)
        else:
            self.rng.choice(self.world.contexts).call_soon(
                self.world.end_one_wait, random.Random(self.rng.random())
            )


def wake_from_thread(world: World, rng: random.Random) -> None:
    while world.waking or world.tickets:
        if rng.random() < 0.2:
            with big_lock:
                world.end_one_wait(rng)
        elif not world.end_one_wait(rng):
            time.sleep(0.0001)  # nothing to do: yields the core, synchronises nothing


def cancel_from_thread(world: World, rng: random.Random, requested: list[int]) -> None:
    while world.waking:
        requested[0] += rng.choice(world.travellers).task.cancel()
        time.sleep(rng.choice([0, 0.0002]))


@pytest.mark.parametrize("io_threads", [2, 5])
def test_travellers(io_threads: int, stress: Stress):
    rng = stress.rng()
    requested = [0]

    async def main() -> World:
        with ExitStack() as stack:
            ios = [stack.enter_context(IOThread(f"io{n}")) for n in range(io_threads)]
            idents = [await io.spawn(ident()) for io in ios]
            home = current_context()
            assert home is not None
            world = World([home, *(io.context for io in ios)], [None, *idents])
            for _ in range(10 * io_threads):
                traveller = Traveller(world, rng.getrandbits(32))
                world.travellers.append(traveller)
                traveller.task = homebound.Task(traveller.live())
            for traveller in world.travellers:
                rng.choice(world.contexts).schedule(traveller.task)
            while not all(traveller.begun for traveller in world.travellers):
                await asyncio.sleep(0)  # one that is cancelled before its first step never begins
            for _ in range(3):
                stress.thread(wake_from_thread, world, stress.rng())
            canceller = stress.thread(cancel_from_thread, world, stress.rng(), requested)
            stress.go()
            await asyncio.sleep(stress.seconds)
            world.waking = False
            await homebound.to_worker(canceller.result)
            try:
                await settle(world, requested)
            finally:
                world.ending = True  # until then they live on when they are cancelled
            await finish(world)
            await homebound.to_worker(stress.join)
            return world

    world = homebound.run(main())
    travellers = world.travellers
    created = sum(each.created for each in travellers)
    completed = sum(each.completed for each in travellers)
    broken_off = sum(each.broken_off for each in travellers)
    print(  # noqa: T201
        f"{created} waits: {completed} ended, {broken_off} cancelled; {requested[0]} cancellations"
    )
    assert not world.wrong, world.wrong[:5]
    assert created == completed + broken_off
    assert completed > 0
    assert sum(each.delivered for each in travellers) == requested[0]


async def ident() -> int:
    return threading.get_ident()


async def settle(world: World, requested: list[int]) -> None:
    """Wait until each cancellation that was accepted has arrived."""
    deadline = time.monotonic() + 20
    while (got := sum(each.delivered for each in world.travellers)) != requested[0]:
        world.end_one_wait(random.Random(0))
        await asyncio.sleep(0)
        assert time.monotonic() < deadline, f"{requested[0]} cancellations, {got} delivered"


async def finish(world: World) -> None:
    deadline = time.monotonic() + 20
    while left := [each.task for each in world.travellers if not each.task.done()]:
        world.end_one_wait(random.Random(0))
        await asyncio.sleep(0)
        assert time.monotonic() < deadline, f"lost: {left[:5]}"
    for traveller in world.travellers:
        traveller.task.result()
