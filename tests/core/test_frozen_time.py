"""Time frozen by a test library, as freezegun does it: I/O goes on, and waits end.

The library replaces the functions of the module `time`, and each global of any module that is
one of them.
"""

from __future__ import annotations

import importlib.util
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Program = Callable[[str], str]

OURS = """
import sys, time

NAMES = ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns")


def freeze():
    frozen = {}
    for name in NAMES:
        real = getattr(time, name)
        frozen[id(real)] = lambda value=type(real())(): value  # long ago
    for module in tuple(sys.modules.values()):
        if module.__name__ in ("threading", "queue"):
            continue  # its waits would not end
        for name, value in tuple(vars(module).items()):
            if id(value) in frozen:
                setattr(module, name, frozen[id(value)])
    assert time.monotonic() == time.monotonic()
"""

FREEZEGUN = """
import freezegun, time


def freeze():
    freezegun.freeze_time("2024-02-29", real_asyncio=True).start()
    assert time.perf_counter() == time.perf_counter()
"""

COMMON = """
import asyncio, socket, threading
import homebound

def in_thread(call):
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(call()))
    thread.start()
    thread.join()
    return outcome[0]
"""


@pytest.fixture(params=["ours", "freezegun"])
def frozen(request: pytest.FixtureRequest, program: Program) -> Program:
    """`frozen(source)` runs it as a program that can `freeze()` time."""
    if request.param == "freezegun" and importlib.util.find_spec("freezegun") is None:
        pytest.skip("freezegun is not installed")
    prelude = OURS if request.param == "ours" else FREEZEGUN
    return lambda source: program(prelude + textwrap.dedent(source))


PROGRAMS = {
    "input comes to a loop that is busy with itself": """
        async def spin():
            while True:
                await asyncio.sleep(0)

        async def main():
            here, there = socket.socketpair()
            here.setblocking(False)
            with here, there:
                busy = asyncio.create_task(spin())
                for _ in range(100):
                    await asyncio.sleep(0)
                received = asyncio.create_task(
                    asyncio.get_running_loop().sock_recv(here, 10)
                )
                await asyncio.sleep(0)  # it waits
                there.send(b"input")
                assert await received == b"input"
                busy.cancel()

        freeze()
        homebound.run(main())
    """,
    "timers strike": """
        async def main():
            await asyncio.sleep(0.001)
            try:
                async with asyncio.timeout(0.001):
                    await homebound.suspend()
            except TimeoutError:
                return True

        freeze()
        assert homebound.run(main())
        with homebound.IOThread() as io:
            assert homebound.block_on(main(), io.context)
    """,
    "waits of threads end": """
        def block():
            try:
                homebound.block_on(homebound.Event().wait(), io.context, timeout=0.001)
            except TimeoutError:
                return True

        freeze()
        assert not homebound.Event().wait_sync(0.001)
        assert not in_thread(lambda: homebound.Event().wait_sync(0.001))
        with homebound.big_lock:
            assert not in_thread(lambda: homebound.big_lock.acquire(timeout=0.001))
        with homebound.IOThread() as io:
            assert block() and in_thread(block)
    """,
    "waits of homes end": """
        async def main():
            try:
                homebound.wait_while(lambda: True, timeout=0.001)
            except TimeoutError:
                return True

        freeze()
        assert homebound.run(main())
    """,
    "a stand-in's wait ends": """
        def stand_in():
            with homebound.big_lock:
                homebound.block_on(asyncio.sleep(0.001))
                return homebound.big_lock.held()

        async def main():
            return await homebound.to_worker(stand_in)

        freeze()
        assert homebound.run(main())
    """,
    "a loop that polls before it sleeps": """
        with homebound.IOThread(poll_max_ns=10**9) as io:
            for _ in range(5):  # it learns to look longer
                homebound.block_on(asyncio.sleep(0.001), io.context)
            freeze()
            homebound.block_on(asyncio.sleep(0.001), io.context)
    """,
    "idle workers leave": """
        freeze()
        with homebound.WorkerPool(idle_timeout=0.001) as pool:
            worker = pool.submit(threading.current_thread).result()
            worker.join()
            assert pool.submit(int).result() == 0
    """,
    "a stall is seen": """
        freeze()
        told = threading.Event()
        with homebound.watch_stalls(0.001, report=lambda stall: told.set()):
            with homebound.IOThread() as io:
                io.context.call_soon(told.wait)
                told.wait()
    """,
    "the tests' own limits are over": """
        from homebound.testing import until
        freeze()
        try:
            until(lambda: False, patience=0.001)
        except AssertionError:
            pass
        else:
            raise SystemExit("it went on")
    """,
    "the virtual clock runs": """
        from homebound.testing import virtual_clock
        freeze()
        with virtual_clock() as clock:
            homebound.run(asyncio.sleep(3600))
            assert clock.now() == 3600.0
        homebound.run(asyncio.sleep(0.001))
    """,
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_frozen_after_homebound_was_imported(frozen: Program, what: str):
    source = textwrap.dedent(PROGRAMS[what])
    assert frozen(f"{COMMON}\n{source}\nprint('done')") == "done\n"


@pytest.mark.parametrize("what", PROGRAMS)
def test_frozen_before(frozen: Program, what: str):
    source = textwrap.dedent(PROGRAMS[what]).replace("freeze()\n", "pass\n")
    assert frozen(f"freeze()\n{COMMON}\n{source}\nprint('done')") == "done\n"
