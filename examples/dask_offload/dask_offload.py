"""A service with a home per thread, whose requests are worked on in a Dask cluster.

    python examples/dask_offload/dask_offload.py [--scheduler ADDRESS]

A request's task waits for the cluster with `homebound.run_in`, and is woken at its own home, which
answers others meanwhile. Without an address the cluster is two processes on this machine, on
loopback. Needs distributed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from distributed import Client, LocalCluster

import homebound

if TYPE_CHECKING:
    from concurrent.futures import Executor

HOMES = 2
LIMITS = [1000, 10_000, 100_000, -1]
PRIMES = [168, 1229, 9592]


def count_primes(limit: int) -> tuple[int, int]:
    """Count primes, in a process of the cluster; only the argument and the result are sent."""
    if limit < 0:
        raise ValueError(f"there is no prime below {limit}")
    is_prime = bytearray([1]) * limit
    is_prime[:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(is_prime[number * number :: number]))
    return sum(is_prime), os.getpid()


class Service:
    """Requests are lines: `ping`, or the limit below which to count primes."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.processes: set[int] = set()  # that have counted; under the lock
        self.lock = homebound.Lock()  # for all homes

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := (await reader.readline()).decode().strip():
                answer = "pong" if line == "ping" else await self.count(int(line))
                writer.write(f"{answer}\n".encode())
        finally:
            writer.close()

    async def count(self, limit: int) -> str:
        home = homebound.running_context()
        try:
            primes, process = await homebound.run_in(self.executor, count_primes, limit)
        except ValueError as error:  # raised in the cluster
            return f"error: {error}"
        finally:
            assert homebound.running_context() is home  # where the connection is
        async with self.lock:
            self.processes.add(process)
        return str(primes)


async def serve(service: Service) -> asyncio.Server:
    return await asyncio.start_server(service.handle, "127.0.0.1", 0)


async def ask(port: int, lines: list[str]) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for line in lines:
        writer.write(f"{line}\n".encode())
        answers.append((await reader.readline()).decode().strip())
    writer.close()
    await writer.wait_closed()
    return answers


async def check(name: str, port: int) -> None:
    """Ask a home for primes in some connections, and for life signs in another."""
    counts = asyncio.gather(*(ask(port, [str(limit)]) for limit in LIMITS))
    assert await ask(port, ["ping"] * 20) == ["pong"] * 20
    answers = [answer for (answer,) in await counts]
    assert answers[:-1] == [str(primes) for primes in PRIMES]
    print(f"{name}: {', '.join(answers)}")


async def main(executor: Executor) -> None:
    service = Service(executor)
    async with homebound.IOThreadPool(HOMES, name="home") as pool:
        servers = await asyncio.gather(*pool.spawn_each(serve, service))
        for io, server in zip(pool, servers, strict=True):
            await check(io.name, server.sockets[0].getsockname()[1])
            async with homebound.on(io):
                server.close()
    assert service.processes
    assert os.getpid() not in service.processes
    print("counted in other processes")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scheduler", help="for example tcp://scheduler:8786")
    chosen = options.parse_args()
    with ExitStack() as stack:
        cluster = chosen.scheduler or stack.enter_context(
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            )
        )
        client = stack.enter_context(Client(cluster))
        # pure=False: equal calls are different jobs, as in every other executor.
        homebound.run(main(client.get_executor(pure=False)))
