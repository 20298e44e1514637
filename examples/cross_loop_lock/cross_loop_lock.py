"""One lock for all: tasks of four loops, of asyncio's loop, and plain threads.

    python examples/cross_loop_lock/cross_loop_lock.py

They move money between accounts. A transfer reads, gives way, and writes: without the lock, money
is lost or made.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter

import homebound

ROUNDS = 50


class Bank:
    """Accounts, and a lock that belongs to no loop."""

    def __init__(self) -> None:
        self.accounts = [100] * 8
        self.lock = homebound.Lock()
        self.transfers: Counter[str] = Counter()  # by the loop or thread; guarded by the lock

    async def transfer(self, place: str, amount: int) -> None:
        """Move an amount between two accounts, from a task."""
        source, target = random.sample(range(len(self.accounts)), 2)
        async with self.lock:
            before = self.accounts[source], self.accounts[target]
            await asyncio.sleep(0)  # other tasks and threads run here
            self.accounts[source], self.accounts[target] = before[0] - amount, before[1] + amount
            self.transfers[place] += 1

    def transfer_sync(self, place: str, amount: int) -> None:
        """Move an amount between two accounts, from a thread."""
        source, target = random.sample(range(len(self.accounts)), 2)
        with self.lock:
            before = self.accounts[source], self.accounts[target]
            time.sleep(0)
            self.accounts[source], self.accounts[target] = before[0] - amount, before[1] + amount
            self.transfers[place] += 1


async def client(bank: Bank, place: str) -> None:
    for amount in range(ROUNDS):
        await bank.transfer(place, amount)


def client_sync(bank: Bank, place: str) -> None:
    for amount in range(ROUNDS):
        bank.transfer_sync(place, amount)


async def main(bank: Bank) -> None:
    threads = [threading.Thread(target=client_sync, args=(bank, f"thread {n}")) for n in range(2)]
    threads.append(threading.Thread(target=lambda: asyncio.run(client(bank, "asyncio's loop"))))
    for thread in threads:
        thread.start()
    async with homebound.IOThreadPool(4, name="loop") as pool, homebound.TaskGroup() as group:
        for io in pool:
            group.create_task(client(bank, io.name), home=io)
        group.create_task(client(bank, "the main loop"))
    for thread in threads:
        await homebound.to_worker(thread.join)


if __name__ == "__main__":
    shared = Bank()
    homebound.run(main(shared))
    for each, transfers in sorted(shared.transfers.items()):
        print(f"{each}: {transfers} transfers")
    print(f"in the bank: {sum(shared.accounts)}")
    assert sum(shared.accounts) == 100 * len(shared.accounts)
    assert set(shared.transfers.values()) == {ROUNDS}
