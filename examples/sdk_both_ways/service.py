"""The service that the SDK asks: a process that answers lines with lines."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def serve(listener: socket.socket) -> None:
    """Answer until the process is killed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            city = line.decode().strip()
            if city != "silence":
                writer.write(f"sunny in {city}\n".encode())
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, sock=listener)
        await server.serve_forever()

    asyncio.run(main())


@contextmanager
def service() -> Iterator[int]:
    """Run the service in a process; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(listener,))
        process.start()
    try:
        yield port
    finally:
        process.kill()
        process.join()
