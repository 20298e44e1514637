"""A server for the example: for each line, a city, it answers with its weather."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import homebound

if TYPE_CHECKING:
    from collections.abc import Iterator


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer):
        while line := await reader.readline():
            writer.write(b"sunny in " + line)


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, int]]:
    """Serve at a free port, in an I/O thread, during the block."""
    with homebound.IOThread("server") as io:
        server = homebound.block_on(asyncio.start_server(_answer, "127.0.0.1", 0), io)
        host, port = server.sockets[0].getsockname()
        yield host, port
        io.context.call_soon(server.close)
