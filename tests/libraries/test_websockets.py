"""websockets: server and client, broadcast, a client in an I/O thread."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from homebound import IOThread

    Run = Callable[..., Any]

server_of = pytest.importorskip("websockets.asyncio.server")
client_of = pytest.importorskip("websockets.asyncio.client")


@asynccontextmanager
async def server() -> AsyncIterator[tuple[Any, str]]:
    async def shout(socket: Any) -> None:
        async for message in socket:
            await socket.send(message.upper())

    async with server_of.serve(shout, "127.0.0.1", 0) as running:
        yield running, f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}"


async def talk(url: str, *messages: str) -> list[str]:
    async with client_of.connect(url) as socket:
        replies = []
        for message in messages:
            await socket.send(message)
            replies.append(await socket.recv())
        return replies


def test_echo(run: Run):
    async def main() -> None:
        async with server() as (_, url):
            assert await talk(url, "one", "two") == ["ONE", "TWO"]

    run(main())


def test_broadcast(run: Run):
    async def main() -> None:
        async with (
            server() as (running, url),
            client_of.connect(url) as first,
            client_of.connect(url) as second,
        ):
            server_of.broadcast(running.connections, "news")
            assert await asyncio.gather(first.recv(), second.recv()) == ["news", "news"]

    run(main())


def test_clients_of_two_homes(run: Run, io: IOThread):
    async def main() -> None:
        async with server() as (_, url):
            replies = await asyncio.gather(io.spawn(talk(url, "there")), talk(url, "here"))
            assert replies == [["THERE"], ["HERE"]]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02), client_of.connect(url) as socket:
                    await socket.recv()  # no peer sends

    run(main())


def test_block_on(run: Run):
    async def main() -> None:
        async with server() as (_, url):
            assert homebound.block_on(talk(url, "nested")) == ["NESTED"]

    run(main())
