"""Places to wait in: a home, another home, loops of others, a plain thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import LoopThread, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    LoopFactory = Callable[[str], Callable[[], asyncio.AbstractEventLoop]]

PLACES = ["home", "other home", "asyncio", "uvloop", "thread"]
LOOPS = ["asyncio", "uvloop", "rloop"]  # of others
PATIENCE = 20.0  # seconds until a test is taken to hang


class Doing:
    """A method call in some place."""

    def __init__(self, result: Callable[[], Any], done: Callable[[], bool], cancel: Any) -> None:
        self.result = result
        self.done = done
        self.cancel = cancel


class Place:
    """`do(lock, "acquire")` calls it there: awaited in a task, `acquire_sync` in a thread."""

    def __init__(self, name: str, spawn: Callable[[Any], Doing]) -> None:
        self.name = name
        self.spawn = spawn

    def do(self, what: Any, method: str, *args: Any) -> Doing:
        return self.spawn(lambda: getattr(what, method)(*args))

    def __repr__(self) -> str:
        return self.name


class ThreadPlace(Place):
    def __init__(self, threads: Threads) -> None:
        super().__init__("thread", self.call)
        self.threads = threads

    def do(self, what: Any, method: str, *args: Any) -> Doing:
        fn = getattr(what, method + "_sync", None) or getattr(what, method)
        return self.call(lambda: fn(*args))

    def call(self, fn: Callable[[], Any]) -> Doing:
        future = self.threads.start(fn)
        return Doing(lambda: future.result(PATIENCE), future.done, None)


async def _awaited(call: Callable[[], Any]) -> Any:
    return await call()


def homebound_place(name: str, io: homebound.IOThread) -> Place:
    def spawn(call: Callable[[], Any]) -> Doing:
        task = io.spawn(_awaited(call))
        return Doing(lambda: homebound.block_on(task, timeout=PATIENCE), task.done, task.cancel)

    return Place(name, spawn)


def loop_place(name: str, loop: asyncio.AbstractEventLoop) -> Place:
    def spawn(call: Callable[[], Any]) -> Doing:
        future = asyncio.run_coroutine_threadsafe(_awaited(call), loop)
        return Doing(lambda: future.result(PATIENCE), future.done, future.cancel)

    return Place(name, spawn)


@pytest.fixture
def place_of(threads: Threads, loop_factory: LoopFactory) -> Iterator[Callable[[str], Place]]:
    """`place_of(name)` makes the place, once; all end with the test."""
    made: dict[str, Place] = {}
    ends: list[Callable[[], Any]] = []

    def make(name: str) -> Place:
        if name == "thread":
            return ThreadPlace(threads)
        if name in LOOPS:
            loop_thread = LoopThread(loop_factory(name))
            ends.append(loop_thread.close)
            return loop_place(name, loop_thread.loop)
        io = homebound.IOThread(name)
        io.start()
        ends.append(io.stop)
        return homebound_place(name, io)

    def of(name: str) -> Place:
        if name not in made:
            made[name] = make(name)
        return made[name]

    yield of
    for end in ends:
        end()


@pytest.fixture(params=[*PLACES, "rloop"])
def place(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> Place:
    return place_of(request.param)


@pytest.fixture(params=PLACES)
def other_place(request: pytest.FixtureRequest, place_of: Callable[[str], Place]) -> Place:
    return place_of(request.param)


@pytest.fixture(params=["homebound", *LOOPS])
def run(request: pytest.FixtureRequest, loop_factory: LoopFactory) -> Callable[[Any], Any]:
    """Run a coroutine in a task of ours, and in tasks of others."""
    if request.param == "homebound":
        return homebound.run

    factory = loop_factory(request.param)

    def run_there(coro: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coro)

    return run_there
