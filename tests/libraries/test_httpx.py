"""httpx: a client on anyio, in several homes, cancelled and waited for synchronously."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from homebound import IOThread

    Run = Callable[..., Any]

httpx = pytest.importorskip("httpx")


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """A server that answers each request with its path, except /never."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                while await reader.readline() != b"\r\n":
                    pass
                path = line.split()[1]
                if path != b"/never":
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
                    writer.write(head % len(path) + path)
        except ConnectionError:
            pass  # the client has hung up
        finally:
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"


async def get(client: Any, path: str) -> str:
    response = await client.get(path)
    assert response.status_code == 200
    text: str = response.text
    return text


def test_requests(run: Run):
    async def main() -> None:
        async with server() as url, httpx.AsyncClient(base_url=url) as client:
            paths = [f"/{number}" for number in range(20)]
            assert await asyncio.gather(*(get(client, path) for path in paths)) == paths
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(get(client, path)) for path in paths]
            assert [task.result() for task in tasks] == paths

    run(main())


def test_timeouts(run: Run):
    async def main() -> None:
        async with server() as url, httpx.AsyncClient(base_url=url) as client:
            with pytest.raises(httpx.ReadTimeout):  # connecting may take longer
                await client.get("/never", timeout=httpx.Timeout(None, read=0.02))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await client.get("/never", timeout=None)
            assert await get(client, "/after") == "/after"

    run(main())


def test_a_client_in_each_home(run: Run, io: IOThread):
    async def ask(url: str, path: str) -> tuple[str, str]:
        async with httpx.AsyncClient(base_url=url) as client:
            return await get(client, path), threading.current_thread().name

    async def main() -> None:
        async with server() as url:
            answers = await asyncio.gather(ask(url, "/here"), io.spawn(ask(url, "/there")))
            assert answers == [("/here", "MainThread"), ("/there", "io")]

    run(main())


def test_one_client_from_two_homes(run: Run, io: IOThread, io2: IOThread):
    """A client's connections belong to the loop that made them: move there to use it."""

    async def visit(client: Any, path: str) -> tuple[str, str]:
        async with homebound.on(io.context):
            answer = await get(client, path)
        return answer, threading.current_thread().name

    async def main() -> None:
        async with server() as url:
            client = httpx.AsyncClient(base_url=url)
            answers = await asyncio.gather(visit(client, "/1"), io2.spawn(visit(client, "/2")))
            assert answers == [("/1", "MainThread"), ("/2", "io2")]
            assert await io.spawn(get(client, "/3")) == "/3"
            await io.spawn(client.aclose())

    run(main())


def test_a_far_request_cancelled(run: Run, io: IOThread):
    async def main() -> None:
        async with server() as url:
            client = httpx.AsyncClient(base_url=url, timeout=None)
            slow = io.spawn(client.get("/never"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow, 0.02)
            assert slow.cancelled()
            assert await io.spawn(get(client, "/after")) == "/after"
            await io.spawn(client.aclose())

    run(main())


def test_block_on(run: Run):
    async def main() -> None:
        async with server() as url, httpx.AsyncClient(base_url=url) as client:
            assert homebound.block_on(get(client, "/nested")) == "/nested"

    run(main())
