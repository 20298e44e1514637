"""End the program with a request under way: it is cancelled, and its connection closed."""

from __future__ import annotations

import sys

import homebound

from . import weather

connected = homebound.Event()


async def ask(port: int) -> None:
    async with weather.aconnect(port) as client:
        connected.set()
        try:
            await client.aget("silence")
        finally:
            print("cleaned up")


weather.background.spawn(ask(int(sys.argv[1])))
connected.wait_sync()
print("with a request under way,", end=" ")
