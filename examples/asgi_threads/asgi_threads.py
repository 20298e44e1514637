"""A chat over WebSockets with one loop per core, in one process, without a broker.

    python examples/asgi_threads/asgi_threads.py [--homes N] [--port P] [--check | --app A]

Each I/O thread runs a uvicorn server on one shared port. A message is sent to all members, at
whichever home their connections are, and what they share is a dictionary. `--check` has clients
talk to it, and ends. `--app module:name` serves another ASGI application in place of the chat.
Needs uvicorn and websockets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect

import homebound


class Room:
    """The members, at all homes."""

    def __init__(self) -> None:
        self.members: dict[str, homebound.Queue[str]] = {}
        self.lock = homebound.Lock()  # for all loops
        self.messages = 0

    async def join(self, name: str) -> homebound.Queue[str]:
        async with self.lock:
            queue = self.members[name] = homebound.Queue[str]()
        return queue

    async def leave(self, name: str) -> None:
        async with self.lock:
            del self.members[name]

    async def say(self, name: str, text: str) -> None:
        """Send a message to all, in the same order for each."""
        home = homebound.running_context().name
        async with self.lock:
            self.messages += 1
            line = json.dumps({"number": self.messages, "from": name, "at": home, "text": text})
            for queue in self.members.values():
                queue.put_nowait(line)  # wakes the member's task at its home


def application(room: Room) -> Any:
    """Return the ASGI application: one WebSocket for each member, whose name is the path."""

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            return
        name = scope["path"].strip("/")
        await receive()
        queue = await room.join(name)
        await send({"type": "websocket.accept"})

        async def pass_on() -> None:
            while True:
                await send({"type": "websocket.send", "text": await queue.get()})

        sender = asyncio.create_task(pass_on())
        try:
            while (event := await receive())["type"] == "websocket.receive":
                await room.say(name, event["text"])
        finally:
            sender.cancel()
            await room.leave(name)

    return app


def listener(port: int) -> socket.socket:
    """Return a socket that shares its port; the kernel spreads connections over such sockets."""
    # asyncio sets TCP_NODELAY on connections if the protocol is named; without it a message that
    # follows another waits for the client's acknowledgement, up to 40 ms.
    sock = socket.socket(proto=socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(1000)  # from now on clients can connect; the server accepts when it is up
    return sock


async def check(port: int) -> None:
    """Let 16 members each say a word, and each hear all of them in one order."""
    members: list[ClientConnection] = [
        await connect(f"ws://127.0.0.1:{port}/member{number}") for number in range(16)
    ]
    await asyncio.gather(*(each.send("hello") for each in members))
    heard = [[json.loads(await each.recv()) for _ in members] for each in members]
    await asyncio.gather(*(each.close() for each in members))
    assert all(lines == heard[0] for lines in heard)
    assert [line["number"] for line in heard[0]] == list(range(1, 17))
    print(f"{len(members)} members heard {len(heard[0])} messages, in one order")


async def main(homes: int, port: int, app: Any, *, checks: bool) -> None:
    first = listener(port)
    port = first.getsockname()[1]
    config = uvicorn.Config(app, log_level="warning", lifespan="off")
    config.load()  # once; the servers of all threads use it
    async with homebound.IOThreadPool(homes, name="home") as pool:
        servers = [uvicorn.Server(config) for _ in pool]
        sockets = [first, *(listener(port) for _ in servers[1:])]
        tasks = [
            io.spawn(server.serve(sockets=[sock]))
            for io, server, sock in zip(pool, servers, sockets, strict=True)
        ]
        print(f"{homes} homes")
        try:
            if checks:
                await check(port)
            else:
                print(f"ws://127.0.0.1:{port}/NAME")
                await asyncio.gather(*tasks)
        finally:
            for server in servers:
                server.should_exit = True
            await asyncio.gather(*tasks)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--homes", type=int, default=os.cpu_count() or 1)
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--check", action="store_true")
    options.add_argument("--app", default=application(Room()))
    chosen = options.parse_args()
    homebound.run(main(chosen.homes, chosen.port, chosen.app, checks=chosen.check))
