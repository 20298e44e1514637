"""Places where somebody can wait: a home, another home, loops of others, a plain thread."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLACES = ["home", "other home", "asyncio", "uvloop", "thread"]
LOOPS = ["asyncio", "uvloop", "rloop"]  # of others
PATIENCE = 20.0  # seconds until a test is taken to hang


@pytest.fixture(scope="session", autouse=True)
def _libuv_is_awake() -> None:
    """libuv opens a pipe at its first loop and keeps it: no test's leak."""
    if importlib.util.find_spec("uvloop"):
        import uvloop  # noqa: PLC0415

        loop = uvloop.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def until(predicate: Callable[[], object]) -> None:
    """Wait for what other threads are about to do."""
    deadline = time.monotonic() + PATIENCE
    while not predicate():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.0002)


class Doing:
    """A method call in some place."""

    def __init__(self, result: Callable[[], Any], done: Callable[[], bool], cancel: Any) -> None:
        self.result = result
        self.done = done
        self.cancel = cancel


class Place:
    """`do(lock, "acquire")` calls it there: awaited in a task, `acquire_sync` in a thread."""

    def __init__(self, name: str, spawn: Callable[[Any], Doing] | None) -> None:
        self.name = name
        self.spawn = spawn
        self.threads: list[threading.Thread] = []

    def do(self, what: Any, method: str, *args: Any) -> Doing:
        if self.spawn is not None:
            return self.spawn(lambda: getattr(what, method)(*args))
        fn = getattr(what, method + "_sync", None) or getattr(what, method)
        outcome: Future[Any] = Future()

        def body() -> None:
            try:
                outcome.set_result(fn(*args))
            except BaseException as error:  # noqa: BLE001 - the future's reader gets it
                outcome.set_exception(error)

        thread = threading.Thread(target=body, daemon=True)
        self.threads.append(thread)
        thread.start()
        return Doing(lambda: outcome.result(PATIENCE), outcome.done, None)

    def end(self) -> None:
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"

    def __repr__(self) -> str:
        return self.name


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


class LoopThread:
    """A loop of others, running in a thread of its own until `end`."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = factory()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def stop(self) -> None:
        """Run no more; what waits there, waits."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    def end(self) -> None:
        if not self.loop.is_closed():
            if self.thread.is_alive():
                self.stop()
            self.loop.close()


@pytest.fixture
def place_of(loop_factory: Callable[[str], Any]) -> Iterator[Callable[[str], Place]]:
    """`place_of(name)` makes the place, once; all end with the test."""
    made: dict[str, Place] = {}
    ends: list[Callable[[], Any]] = []

    def make(name: str) -> Place:
        if name == "thread":
            thread_place = Place(name, None)
            ends.append(thread_place.end)
            return thread_place
        if name in LOOPS:
            loop_thread = LoopThread(loop_factory(name))
            ends.append(loop_thread.end)
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
def run(request: pytest.FixtureRequest, loop_factory: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Run a coroutine in a task of ours, and in tasks of others."""
    if request.param == "homebound":
        return homebound.run

    factory = loop_factory(request.param)

    def run_there(coro: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coro)

    return run_there
