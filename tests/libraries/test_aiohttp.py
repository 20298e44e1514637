"""aiohttp: server and client, streams, WebSockets, timeouts, each also in an I/O thread."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Run = Callable[..., Any]

aiohttp = pytest.importorskip("aiohttp")
web = pytest.importorskip("aiohttp.web")


async def echo(request: Any) -> Any:
    return web.json_response({"got": await request.json(), "by": threading.current_thread().name})


async def count(request: Any) -> Any:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(100):
        await response.write(b"%d\n" % number)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def never(_request: Any) -> Any:
    await asyncio.sleep(3600)


async def talk(request: Any) -> Any:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(message.data.upper())
    return socket


async def synchronous(_request: Any) -> Any:
    """A handler that calls a synchronous API, which waits for asynchronous work at home."""
    return web.Response(text=homebound.block_on(asyncio.sleep(0.001, "waited")))


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/echo", echo)
    for handler in (count, never, talk, synchronous):
        app.router.add_get(f"/{handler.__name__}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def post(url: str, value: Any) -> Any:
    async with aiohttp.ClientSession() as session, session.post(url, json=value) as response:
        assert response.status == 200
        return await response.json()


async def get(url: str, **options: Any) -> Any:
    async with aiohttp.ClientSession(**options) as session, session.get(url) as response:
        return await response.text()


def test_requests(run: Run):
    async def main() -> None:
        async with server() as url, aiohttp.ClientSession() as session:

            async def ask(number: int) -> Any:
                async with session.post(f"{url}/echo", json=number) as response:
                    return (await response.json())["got"]

            assert await asyncio.gather(*map(ask, range(50))) == list(range(50))
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(number)) for number in range(10)]
            assert [task.result() for task in tasks] == list(range(10))

    run(main())


def test_stream(run: Run):
    async def main() -> None:
        async with server() as url, aiohttp.ClientSession() as session:
            async with session.get(f"{url}/count") as response:
                lines = [int(line) async for line in response.content]
            assert lines == list(range(100))

    run(main())


def test_web_socket(run: Run):
    async def main() -> None:
        async with (
            server() as url,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/talk") as socket,
        ):
            for text in ("one", "two"):
                await socket.send_str(text)
                assert await socket.receive_str() == text.upper()

    run(main())


def test_timeouts(run: Run):
    async def main() -> None:
        async with server() as url:
            with pytest.raises(TimeoutError):
                await get(f"{url}/never", timeout=aiohttp.ClientTimeout(total=0.02))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await get(f"{url}/never")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(get(f"{url}/never"), 0.02)

    run(main())


def test_handler_that_waits_synchronously(run: Run):
    async def main() -> None:
        async with server() as url:
            pages = await asyncio.gather(*(get(f"{url}/synchronous") for _ in range(5)))
            assert pages == ["waited"] * 5

    run(main())


def test_client_in_an_io_thread(run: Run, io: IOThread):
    async def main() -> None:
        async with server() as url:
            reply = await io.spawn(post(f"{url}/echo", [1, 2]))
            assert reply == {"got": [1, 2], "by": "MainThread"}
            both = asyncio.gather(io.spawn(post(f"{url}/echo", 1)), post(f"{url}/echo", 2))
            assert [each["got"] for each in await both] == [1, 2]

    run(main())


def test_server_in_an_io_thread(run: Run, io: IOThread):
    async def main() -> None:
        here = homebound.main_context()
        assert here is not None
        async with homebound.on(io.context):
            assert threading.current_thread().name == "io"
            async with server() as url:
                async with homebound.on(here):
                    reply = await post(f"{url}/echo", "from main")
                assert reply == {"got": "from main", "by": "io"}

    run(main())


def test_task_group_and_timeout_across_homes(run: Run, io: IOThread, io2: IOThread):
    async def wait(task: Any) -> Any:
        return await task

    async def main() -> None:
        async with server() as url:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(wait(home.spawn(post(f"{url}/echo", number))))
                    for number, home in enumerate((io, io2, io, io2))
                ]
            assert [task.result()["got"] for task in tasks] == [0, 1, 2, 3]
            slow = io.spawn(get(f"{url}/never"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await slow
            assert slow.cancelled()

    run(main())


def test_client_on_uvloop_beside_it(run: Run):
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with (
            server() as url,
            IOThread("uv", loop_factory=uvloop.new_event_loop) as uv,
        ):
            tasks = [uv.spawn(post(f"{url}/echo", number)) for number in range(10)]
            assert [each["got"] for each in await asyncio.gather(*tasks)] == list(range(10))
            slow = uv.spawn(get(f"{url}/never"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow, 0.02)
            assert slow.cancelled()

    run(main())


def test_block_on_a_client(run: Run, io: IOThread):
    async def main() -> None:
        async with server() as url:  # both this thread and the other run their loops meanwhile
            assert homebound.block_on(post(f"{url}/echo", 1))["got"] == 1
            assert homebound.block_on(post(f"{url}/echo", 2), io.context)["got"] == 2

            def guest() -> Any:
                with homebound.big_lock:
                    return homebound.block_on(post(f"{url}/echo", 3))

            assert (await homebound.to_worker(guest))["got"] == 3

    run(main())
