"""Move one coroutine between threads: its timeouts and contextvars go along."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import homebound

request: contextvars.ContextVar[str] = contextvars.ContextVar("request")


def where() -> str:
    return f"{request.get()} in {threading.current_thread().name}"


async def handle(name: str, disk: homebound.IOThread, net: homebound.IOThread) -> list[str]:
    request.set(name)
    async with asyncio.timeout(10):
        steps = [where()]
        async with homebound.on(disk.context):
            steps.append(where())
            await asyncio.sleep(0.001)  # a timer of the disk thread's loop
        async with homebound.on(net.context):
            steps.append(where())
        return [*steps, where()]


async def main() -> None:
    async with homebound.IOThread("disk") as disk, homebound.IOThread("net") as net:
        both = await asyncio.gather(*(handle(name, disk, net) for name in ("first", "second")))
    for steps in both:
        print(" -> ".join(steps))
    assert both[0] == [f"first in {name}" for name in ("MainThread", "disk", "net", "MainThread")]


if __name__ == "__main__":
    homebound.run(main())
