"""Use the SDK in each way that its users do.

    cd examples; python -m sdk_both_ways [WAY...]

The ways: script, thread, running_loop, async, fork, exit. The service that it asks is in a process
of its own, as such services are.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING

from . import weather
from .service import service

if TYPE_CHECKING:
    from collections.abc import Callable


def script(port: int) -> None:
    """Use it in a program without a loop."""
    with weather.connect(port) as client:
        print("script:", client.get("Graz"))
        print("script:", list(client.follow("Linz", 2)))


def thread(port: int) -> None:
    """Share one connection between threads: it stays at the library's home."""
    answers: list[str] = []
    with weather.connect(port) as client:
        threads = [
            threading.Thread(target=lambda city=city: answers.append(client.get(city)))
            for city in ("Graz", "Linz", "Wien")
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    print("thread:", sorted(answers))


def running_loop(port: int) -> None:
    """Call the synchronous face where a loop runs: a notebook's cell, a callback."""

    async def cell() -> None:
        with weather.connect(port) as client:
            print("running_loop:", client.get("Graz"))

    asyncio.run(cell())


def asynchronous(port: int) -> None:
    """Use the asynchronous face, in the user's own loop."""

    async def main() -> None:
        async with weather.aconnect(port) as client:
            print("async:", await asyncio.gather(client.aget("Graz"), client.aget("Linz")))
            print("async:", [each async for each in client.afollow("Wien", 2)])

    asyncio.run(main())


def fork(port: int) -> None:
    """Use it before and after a fork, as Celery's and gunicorn's prefork workers do."""
    script(port)  # it is running now, in the parent
    sys.stdout.flush()
    with warnings.catch_warnings():  # Python 3.12 and later warn of a fork beside threads
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            script(port)
            sys.stdout.flush()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    with weather.connect(port) as client:
        print("fork: in the parent,", client.get("Graz"))


def leave(port: int) -> None:
    """Run a program that ends with a connection open and a request under way."""
    command = [sys.executable, "-m", f"{__package__}.leave", str(port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # noqa: S603
    assert not done.stderr
    print("exit:", done.stdout.strip())


WAYS: dict[str, Callable[[int], None]] = {
    "script": script,
    "thread": thread,
    "running_loop": running_loop,
    "async": asynchronous,
    "fork": fork,
    "exit": leave,
}


if __name__ == "__main__":
    with service() as port_of_service:
        for way in sys.argv[1:] or WAYS:
            WAYS[way](port_of_service)
