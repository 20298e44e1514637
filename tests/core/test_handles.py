"""Handles of call_soon_threadsafe: cancelled from any thread, also while they run."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import big_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

waits = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="asyncio's cancel() waits for a handle that runs since 3.14"
)


@pytest.mark.parametrize("debug", [False, True])
def test_cancelled_before_it_runs(debug: Any, in_thread: InThread):
    """The handle stands in the queue behind the callback that waits for the other thread."""
    ran: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def post_and_cancel() -> bool:
            handle = loop.call_soon_threadsafe(ran.append, "cancelled")
            loop.call_soon_threadsafe(ran.append, "kept")
            assert not handle.cancelled()
            handle.cancel()
            handle.cancel()
            return handle.cancelled()

        assert in_thread(post_and_cancel).result(20)
        await asyncio.sleep(0)

    homebound.run(main(), debug=debug)
    assert ran == ["kept"]


def test_cancelled_by_itself():
    """The callback runs to its end."""
    ran: list[bool] = []

    async def main() -> None:
        def callback() -> None:
            handle.cancel()
            ran.append(handle.cancelled())

        handle = asyncio.get_running_loop().call_soon_threadsafe(callback)
        await asyncio.sleep(0)
        assert handle.cancelled()

    homebound.run(main())
    assert ran == [True]


def test_one_that_fails_is_reported():
    reports: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, report: reports.append(report))
        handle = loop.call_soon_threadsafe(int, "no number")
        await asyncio.sleep(0)
        assert not handle.cancelled()

    homebound.run(main())
    assert [type(report["exception"]) for report in reports] == [ValueError]


@waits
@pytest.mark.parametrize("ask", ["cancel", "cancelled"])
def test_cancel_waits_for_a_callback_that_runs_elsewhere(ask: str, in_thread: InThread):
    """The wait releases the big lock, which the callback needs before it can end."""
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def callback() -> None:
        begun.set()
        homebound.wait_while(lambda: not go_on.is_set())
        order.append("the callback ended")

    def ask_under_the_lock(handle: asyncio.Handle) -> Future[None]:
        begun.wait(20)
        with big_lock:
            releaser = in_thread(let_it_end)
            getattr(handle, ask)()
            order.append("the other thread knows")
        return releaser

    def let_it_end() -> None:
        with big_lock:
            go_on.set()
            homebound.kick()

    async def main() -> None:
        handle = asyncio.get_running_loop().call_soon_threadsafe(callback)
        releaser = await asyncio.to_thread(ask_under_the_lock, handle)
        releaser.result(20)
        assert handle.cancelled() is (ask == "cancel")

    homebound.run(main())
    assert order == ["the callback ended", "the other thread knows"]


@waits
def test_it_is_what_asyncio_calls_thread_safe():
    async def main(*, debug: bool) -> None:
        loop = asyncio.get_running_loop()
        handle: Any = loop.call_soon_threadsafe(int)
        assert isinstance(handle, asyncio.events._ThreadSafeHandle)  # type: ignore[attr-defined]
        if debug:
            assert handle._source_traceback[-1].name == "main"
        await asyncio.sleep(0)

    for debug in (False, True):
        homebound.run(main(debug=debug), debug=debug)
