"""Threads for the tests of the core: plain ones whose outcome is a future, and I/O threads."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing.resource_tracker
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session", autouse=True)
def _libuv_is_awake() -> None:
    """libuv opens a pipe at its first loop and keeps it: no test's leak."""
    if importlib.util.find_spec("uvloop"):
        import uvloop  # noqa: PLC0415

        loop = uvloop.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.fixture(scope="session", autouse=True)
def _multiprocessing_is_awake() -> None:
    """Its resource tracker, once started, keeps a pipe: no test's leak."""
    multiprocessing.resource_tracker.ensure_running()


@pytest.fixture
def in_thread() -> Iterator[Callable[..., Future[Any]]]:
    """`in_thread(fn, *args)` calls it in a plain thread of its own; the future has the outcome."""
    threads = []  # type: ignore[var-annotated]

    def start(fn: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def body() -> None:
            try:
                future.set_result(fn(*args))
            except BaseException as error:  # noqa: BLE001
                future.set_exception(error)

        thread = threading.Thread(target=body, name=f"plain{len(threads)}", daemon=True)
        threads.append(thread)
        thread.start()
        return future

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), f"{thread} hangs"


@pytest.fixture
def io() -> Iterator[homebound.IOThread]:
    with homebound.IOThread("io") as thread:
        yield thread


@pytest.fixture
def io2() -> Iterator[homebound.IOThread]:
    with homebound.IOThread("io2") as thread:
        yield thread


@pytest.fixture
def gate() -> Iterator[Callable[[homebound.AioContext], threading.Event]]:
    """`gate(context)` keeps its home busy until the event it returns is set."""
    opened = []

    def close(context: homebound.AioContext) -> threading.Event:
        busy, go_on = threading.Event(), threading.Event()
        opened.append(go_on)

        def hold() -> None:
            busy.set()
            go_on.wait(20)

        context.call_soon(hold)
        assert busy.wait(20)
        return go_on

    yield close
    for event in opened:
        event.set()


@pytest.fixture(params=["homebound", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Both runners: what a test finds with one, it must find with the other."""
    return homebound.run if request.param == "homebound" else asyncio.run


class StockLoop:
    """Somebody else's asyncio loop in a thread of its own."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = factory()
        self.thread = threading.Thread(target=self._live, name="stock", daemon=True)
        self.thread.start()

    def _live(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, coro: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coro, self.loop)

    def close(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
        self.loop.close()


@pytest.fixture(params=["asyncio", "uvloop", "rloop"])
def factory(
    request: pytest.FixtureRequest, loop_factory: Callable[[str], Any]
) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes loops of somebody else's."""
    made: Callable[[], asyncio.AbstractEventLoop] = loop_factory(request.param)
    return made


@pytest.fixture
def stock(factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[StockLoop]:
    loop = StockLoop(factory)
    yield loop
    loop.close()
