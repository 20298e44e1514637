"""A library with two faces, over one connection that is kept: the SDK.

`Client` is the asynchronous face. `connect`, `get` and `follow` are the synchronous one, made from
the same code.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

import homebound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

background = homebound.Background("weather")  # starts at its first use, once a process


class Client:
    """One connection to the service; requests of many tasks take turns on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._turn = homebound.Lock()

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def aget(self, city: str) -> str:
        """Return the weather of a city."""
        async with self._turn:
            self._writer.write(city.encode() + b"\n")
            answer = await self._reader.readline()
        if not answer:
            raise ConnectionError("the service has closed the connection")
        return answer.decode().strip()

    async def afollow(self, city: str, times: int) -> AsyncGenerator[str, None]:
        """Yield the weather again and again."""
        for _ in range(times):
            yield await self.aget(city)

    async def aclose(self) -> None:
        """Disconnect."""
        self._writer.close()
        await self._writer.wait_closed()

    get = background.sync(aget)
    follow = background.sync(afollow)
    close = background.sync(aclose)


@asynccontextmanager
async def aconnect(port: int) -> AsyncIterator[Client]:
    """Connect for the length of an `async with` block."""
    client = await Client.open(port)
    try:
        yield client
    finally:
        await client.aclose()


connect = background.sync(aconnect)
