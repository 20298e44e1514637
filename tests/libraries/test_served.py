"""Synchronous code in the worker threads of anyio, starlette and asgiref runs at the app's home."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, block_on, to_worker

if TYPE_CHECKING:
    from collections.abc import Callable

anyio = pytest.importorskip("anyio")
from_thread = pytest.importorskip("anyio.from_thread")
to_thread = pytest.importorskip("anyio.to_thread")

OURS = {"loop_factory": homebound.new_event_loop}


async def loop_here() -> asyncio.AbstractEventLoop:
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


def ask() -> asyncio.AbstractEventLoop:
    """A `def` endpoint, or a tool, that needs a coroutine's answer."""
    assert homebound.current_context() is None
    return block_on(loop_here())


async def agrees() -> bool:
    here = asyncio.get_running_loop()
    return [await to_thread.run_sync(ask), await asyncio.to_thread(ask)] == [here, here]


def test_anyio_in_the_main_home_and_an_io_thread(run: Callable[..., Any], io: IOThread):
    async def main() -> None:
        assert await agrees()
        assert await io.spawn(agrees())

    run(main())


def test_anyio_in_an_io_thread_without_a_main_context(io: IOThread):
    assert block_on(agrees(), io)


def test_anyio_at_the_home_to_which_a_task_has_moved(io: IOThread):
    async def main() -> None:
        async with homebound.on(io):
            assert await agrees()
        assert await agrees()

    homebound.run(main())


def test_anyio_on_a_foreign_loop():
    uvloop = pytest.importorskip("uvloop")

    async def main() -> bool:
        return await to_thread.run_sync(ask) is asyncio.get_running_loop()

    with IOThread("uv", loop_factory=uvloop.new_event_loop) as io:
        assert block_on(io.spawn(main()))


def test_anyio_on_a_loop_that_is_not_attached():
    def refused() -> None:
        with pytest.raises(homebound.ContextError, match="there is no context"):
            ask()

    asyncio.run(to_thread.run_sync(refused))


def test_the_thread_of_a_portal_is_a_home():
    with from_thread.start_blocking_portal("asyncio", OURS) as portal:
        assert portal.call(agrees)


def test_to_worker_from_a_thread_of_anyio(io: IOThread):
    def through_the_loop() -> int:
        return from_thread.run(to_worker, sum, [1, 2, 3])  # type: ignore[no-any-return]

    def through_block_on() -> int:
        return block_on(to_worker(sum, [1, 2, 3]))

    async def main() -> None:
        assert await to_thread.run_sync(through_the_loop) == 6
        assert await to_thread.run_sync(through_block_on) == 6

    block_on(main(), io)


def test_starlettes_client():
    pytest.importorskip("httpx")
    routing = pytest.importorskip("starlette.routing")
    starlette = pytest.importorskip("starlette.applications")
    responses = pytest.importorskip("starlette.responses")
    testclient = pytest.importorskip("starlette.testclient")
    loops: list[asyncio.AbstractEventLoop] = []

    def sync_endpoint(_request: Any) -> Any:
        loops.append(ask())
        return responses.PlainTextResponse("sync")

    async def async_endpoint(_request: Any) -> Any:
        loops.append(asyncio.get_running_loop())
        return responses.PlainTextResponse(block_on(text()))

    async def text() -> str:
        await asyncio.sleep(0)
        return "async"

    routes = [routing.Route("/sync", sync_endpoint), routing.Route("/async", async_endpoint)]
    app = starlette.Starlette(routes=routes)
    with testclient.TestClient(app, backend_options=OURS) as client:  # one loop for all requests
        assert client.get("/sync").text == "sync"
        assert client.get("/async").text == "async"
        assert loops[0] is loops[1]


def test_asgiref(io: IOThread):
    sync = pytest.importorskip("asgiref.sync")

    async def main() -> bool:
        ours = asyncio.get_running_loop()
        return await sync.sync_to_async(ask, thread_sensitive=False)() is ours

    assert block_on(main(), io)
