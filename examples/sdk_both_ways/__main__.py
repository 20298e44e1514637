"""The same library in a script, threads, a running loop, a coroutine, and forked workers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from .server import serving
from .weather import AsyncClient, Client, background


def script(host: str, port: int) -> None:
    with Client(host, port) as client:
        print("script:", client.get("Graz"))
        print("script:", *client.forecast("Linz", days=2), sep="\n  ")


def threads(client: Client) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(client.get, ["Wien"] * 20))
    print("threads:", *answers)


async def running_loop(client: Client) -> None:
    """Call synchronous code in a running loop, as a cell of a notebook does."""
    print("running loop:", client.get("Steyr"))


async def coroutine(host: str, port: int) -> None:
    async with AsyncClient(host, port) as client:
        print("coroutine:", await client.get("Wels"))


def worker(address: tuple[str, int]) -> tuple[int, str]:
    with Client(*address) as client:
        return os.getpid(), client.get("Villach")


def forked(host: str, port: int) -> None:
    """Use it in workers that are forked after it was used here: Celery's and gunicorn's way."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        answers = dict(pool.map(worker, [(host, port)] * 4))
    assert os.getpid() not in answers
    print("forked workers:", *set(answers.values()))


def main() -> None:
    with serving() as (host, port):
        script(host, port)
        with Client(host, port) as client:
            threads(client)
            asyncio.run(running_loop(client))
        asyncio.run(coroutine(host, port))
        if sys.platform == "linux":
            forked(host, port)
        background.stop()
        print(background)


if __name__ == "__main__":
    main()
