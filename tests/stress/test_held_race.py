"""Timeouts and task groups that act on a suspended task, while a thread takes it to other homes.

Each block ends as it would in one thread: by a timeout or in time, with every failure of a child,
and no cancellation is left over.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextError, IOThread, current_task
from homebound._core.pursuit import held

if TYPE_CHECKING:
    import random

    from homebound import AioContext
    from homebound.testing import Stress

PARENTS = 4


class ChildError(Exception):
    pass


async def child(rng: random.Random, failed: list[bool]) -> None:
    for _ in range(rng.randrange(3)):
        await asyncio.sleep(0)
    failed.append(rng.random() < 0.5)
    if failed[-1]:
        raise ChildError


class Race:
    def __init__(self, stress: Stress, contexts: list[AioContext]) -> None:
        self.stress = stress
        self.contexts = contexts
        self.groups: dict[Any, homebound.TaskGroup] = {}
        self.tasks: list[homebound.Task[None]] = []

    async def timeout(self, rng: random.Random) -> None:
        try:
            async with asyncio.timeout(rng.choice([0, 0.00005, 0.0002])):
                await homebound.suspend()
                await homebound.suspend()
        except TimeoutError:
            self.stress.count("timeouts")

    async def asyncio_group(self, rng: random.Random) -> None:
        failed: list[bool] = []
        raised = 0
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(rng.randrange(1, 3)):
                    group.create_task(child(rng, failed))
                await homebound.suspend()
        except* ChildError as error:
            raised = len(error.exceptions)
        assert raised == sum(failed)

    async def group(self, rng: random.Random) -> None:
        failed: list[bool] = []
        raised = 0
        try:
            async with homebound.TaskGroup() as group:
                for _ in range(rng.randrange(1, 3)):
                    group.create_task(child(rng, failed), home=rng.choice(self.contexts))
                await homebound.suspend()
        except* ChildError as error:
            raised = len(error.exceptions)
        assert raised == sum(failed)

    async def cancelled_group(self, _: random.Random) -> None:
        async with homebound.TaskGroup() as group:
            self.groups[current_task()] = group
            await homebound.suspend()

    async def parent(self, rng: random.Random) -> None:
        me = current_task()
        assert me is not None
        kinds = [self.timeout, self.asyncio_group, self.group, self.cancelled_group]
        while not self.stress.over():
            kind = rng.choice(kinds)
            try:
                await kind(rng)
                for _ in range(3):
                    await asyncio.sleep(0)  # nothing is left that ends this wait
                if kind == self.asyncio_group and sys.version_info < (3, 13):
                    me.uncancel()  # a child that fails at the block's end leaves its request
                assert me.cancelling() == 0
            except BaseException as error:
                error.add_note(kind.__name__)
                self.stress.fail(error)
                raise
            self.stress.count("blocks")

    def take(self, rng: random.Random) -> None:
        """Take suspended tasks to other homes, until all have ended."""
        while not all(task.done() for task in self.tasks):
            task = rng.choice(self.tasks)
            try:
                rng.choice(self.contexts).schedule(task)
            except ContextError:
                pass  # it runs, or waits for something else
            group = self.groups.get(task)
            if group is not None and rng.random() < 0.3:
                group.cancel()


@pytest.mark.parametrize("io_threads", [2, 5])
def test_held_race(io_threads: int, stress: Stress):
    ios = [IOThread(f"io{n}").start() for n in range(io_threads)]
    try:
        race = Race(stress, [io.context for io in ios])
        for io in ios:
            io.context.loop.set_exception_handler(
                lambda _, context: stress.fail(context.get("exception") or RuntimeError(context))
            )
        rng = stress.rng()
        race.tasks += [rng.choice(ios).spawn(race.parent(stress.rng())) for _ in range(PARENTS)]
        stress.thread(race.take, stress.rng())
        stress.wait()
        assert stress.counts["blocks"] > 0
        assert not held
    finally:
        for io in ios:
            io.stop()
