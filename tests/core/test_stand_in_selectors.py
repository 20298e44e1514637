"""Stand-ins on loops with a selector that two threads cannot use at once."""

from __future__ import annotations

import asyncio
import selectors
import socket
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import big_lock, block_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


@pytest.mark.parametrize("name", ["SelectSelector", "PollSelector"])
@pytest.mark.parametrize("waits", ["in block_on", "elsewhere"])
def test_the_home_notices_what_is_added(waits: str, name: str, in_thread: InThread):
    """The home sleeps on a copy of what was watched when it fell asleep."""

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        received: asyncio.Future[bytes] = loop.create_future()

        def receive() -> None:
            loop.remove_reader(ours)
            received.set_result(ours.recv(10))

        async def wait() -> None:
            loop.call_later(0.001, theirs.send, b"hello")
            await received

        def work() -> None:
            with big_lock:
                block_on(asyncio.sleep(0.001))
                loop.add_reader(ours, receive)
                if waits == "in block_on":
                    block_on(wait())
            if waits == "elsewhere":
                theirs.send(b"hello")

        future = in_thread(work)
        try:
            return await received
        finally:
            await asyncio.wrap_future(future)
            ours.close()
            theirs.close()

    selector = getattr(selectors, name)
    with asyncio.Runner(loop_factory=lambda: homebound.new_event_loop(selector())) as runner:
        assert runner.run(main()) == b"hello"
