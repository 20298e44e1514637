"""Servers in this process, for the client's tests: our own, and rude ones that serve memory."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import Export, NBDServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 1 << 20


def on_server(use: Callable[[str], Any], *, read_only: bool = False) -> None:
    """Run `use(uri)` with our server, both in one loop."""

    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            async with NBDServer(Export(disk, read_only=read_only)) as server:
                await server.listen_tcp("127.0.0.1", 0)
                await use(server.uris[0])

    homebound.run(main())


@contextmanager
def serving_elsewhere(path: Path, size: int = SIZE, **options: Any) -> Iterator[NBDServer]:
    """Serve a disk on a unix socket, in another thread; the server."""

    async def serve() -> None:
        with MemoryDisk(size) as disk:
            async with NBDServer(disk, **options) as server:
                await server.listen_unix(path)
                servers.append(server)
                listening.set()
                await over.wait()

    servers: list[NBDServer] = []
    listening, over = threading.Event(), homebound.Event()
    with homebound.IOThread() as io:
        task = io.spawn(serve())
        listening.wait()
        try:
            yield servers[0]
        finally:
            over.set()
            homebound.block_on(asyncio.wait([task]), io.context)


def serving(memory: bytearray, **handshake: Any) -> Any:
    """Talk as a server of `memory`."""

    async def talk(end: Any) -> None:
        await end.negotiate(**handshake)
        await end.serve(memory)

    return talk
