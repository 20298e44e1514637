"""A library with two faces: `AsyncClient` for coroutines, `Client` for everything else.

Both are the same code. The asynchronous one runs in its caller's event loop, the synchronous one at
the library's own home, a Background, which is started at the first call.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Self

import homebound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

background = homebound.Background("weather")


class _Core:
    """A client that keeps one connection, and asks one question at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        # By process: a forked one must not talk over its parent's connection.
        self._streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        self._one_at_a_time = homebound.Lock()  # bound to no loop

    async def _get(self, city: str) -> str:
        """Return today's weather."""
        async with self._one_at_a_time:
            reader, writer = await self._connected()
            writer.write(f"{city}\n".encode())
            line = await reader.readline()
        if not line:
            message = f"{self._address} has hung up"
            raise ConnectionError(message)
        return line.decode().strip()

    async def _forecast(self, city: str, *, days: int = 3) -> AsyncGenerator[str, None]:
        """Yield the weather of one day after another, within five seconds."""
        async with asyncio.timeout(5):
            for day in range(days):
                yield f"day {day}: {await self._get(city)}"

    async def _close(self) -> None:
        streams = self._streams.pop(os.getpid(), None)
        if streams is not None:
            streams[1].close()
            await streams[1].wait_closed()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        streams = self._streams.get(os.getpid())
        if streams is None:
            streams = self._streams[os.getpid()] = await asyncio.open_connection(*self._address)
        return streams


class AsyncClient(_Core):
    """The asynchronous face."""

    get = _Core._get
    forecast = _Core._forecast
    aclose = _Core._close

    async def __aenter__(self) -> Self:
        """Return it, to be closed at the end of the block."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close it."""
        await self.aclose()


class Client(_Core):
    """The synchronous face: the same methods, with the same parameters and results."""

    get = background.sync(_Core._get)
    forecast = background.sync(_Core._forecast)
    close = background.sync(_Core._close)

    def __enter__(self) -> Self:
        """Return it, to be closed at the end of the block."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()
