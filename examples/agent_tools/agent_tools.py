"""An agent's tools: synchronous functions, called in a running loop, that use async clients.

    python examples/agent_tools/agent_tools.py

Frameworks for agents call tools as plain functions, from a loop that serves other requests as well.
Here two agents work at once. Each tool waits for an async client with `block_on`; one has a time
limit; one starts an agent of its own, which calls tools again.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import homebound

Tool = Callable[..., object]
PAGES = {
    "/stock/bolts": {"item": "bolts", "stock": 1200},
    "/stock/nuts": {"item": "nuts", "stock": 90},
    "/price/bolts": {"item": "bolts", "price": 7},
    "/price/nuts": {"item": "nuts", "price": 3},
}


class Shop:
    """An async client of a service that answers a line with a line of JSON."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def get(self, path: str) -> dict[str, object]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(path.encode() + b"\n")
            answer: dict[str, object] = json.loads(await reader.readline())
            return answer
        finally:
            writer.close()
            await writer.wait_closed()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request: the service."""
    path = (await reader.readline()).decode().strip()
    if path == "/slow":
        await reader.read()  # until the client hangs up
    else:
        writer.write(json.dumps(PAGES[path]).encode() + b"\n")
    writer.close()
    await writer.wait_closed()


@dataclass
class Agent:
    """A plan in place of a model: which tools to call, with what."""

    name: str
    tools: dict[str, Tool]
    plan: list[tuple[str, dict[str, object]]]
    log: list[str] = field(default_factory=list)

    async def run(self) -> list[object]:
        """Carry out the plan; between the calls other tasks of this loop have their turns."""
        results = []
        for tool, arguments in self.plan:
            result = self.tools[tool](**arguments)  # as frameworks do: no await
            assert not inspect.isawaitable(result)
            self.log.append(f"{self.name}: {tool} -> {result}")
            results.append(result)
            await asyncio.sleep(0)
        return results


def tools_of(shop: Shop) -> dict[str, Tool]:
    """Return the tools: each has a synchronous signature, and waits for async code."""

    def stock(item: str) -> object:
        return homebound.block_on(shop.get(f"/stock/{item}"))["stock"]

    def prices(items: list[str]) -> dict[str, object]:
        async def all_at_once() -> list[dict[str, object]]:
            return await asyncio.gather(*(shop.get(f"/price/{item}") for item in items))

        return {str(each["item"]): each["price"] for each in homebound.block_on(all_at_once())}

    def supplier() -> str:
        try:
            homebound.block_on(shop.get("/slow"), timeout=0.05)
        except TimeoutError:
            return "no answer"
        return "answered"

    def delegate(item: str) -> list[object]:
        helper = Agent("helper", tools, [("stock", {"item": item}), ("prices", {"items": [item]})])
        return homebound.block_on(helper.run())  # its tools wait inside this wait

    tools: dict[str, Tool] = {
        "stock": stock,
        "prices": prices,
        "supplier": supplier,
        "delegate": delegate,
    }
    return tools


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tools = tools_of(Shop(server.sockets[0].getsockname()[1]))
    buyer = Agent("buyer", tools, [("stock", {"item": "nuts"}), ("delegate", {"item": "bolts"})])
    clerk = Agent("clerk", tools, [("prices", {"items": ["bolts", "nuts"]}), ("supplier", {})])
    async with server:  # the same loop serves the requests of its own tools
        bought, priced = await asyncio.gather(buyer.run(), clerk.run())
    print(*buyer.log, *clerk.log, sep="\n")
    assert bought == [90, [1200, {"bolts": 7}]]
    assert priced == [{"bolts": 7, "nuts": 3}, "no answer"]


if __name__ == "__main__":
    homebound.run(main())
