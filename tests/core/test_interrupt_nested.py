"""Ctrl-C while the main task waits in a call, beneath the nested waits of other tasks."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import asyncio, os, signal, sys, homebound
from homebound import block_on, wait_while

def poll():
    while True:
        homebound.current_context().poll()

def lock():
    lock = homebound.Lock()
    lock.acquire_sync()
    lock.acquire_sync()

WAITS = {
    "block_on": lambda: block_on(asyncio.sleep(3600)),
    "wait_while": lambda: wait_while(lambda: True, homebound.current_context()),
    "poll": poll,
    "get_sync": lambda: homebound.Queue().get_sync(),
    "acquire_sync": lock,
}
keep = []

def begin(coro):
    keep.append(asyncio.get_running_loop().create_task(coro))

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

async def waits(name, *above, then=interrupt):
    '''Wait in a call, and have the rest wait in calls nested in it; the last does `then`.'''
    if above:
        begin(waits(*above, then=then))
    else:
        asyncio.get_running_loop().call_soon(then)
    try:
        WAITS[name]()
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
        block_on(asyncio.sleep(0))
        print(name, "cleaned up")
        raise

def run(main):
    try:
        print(homebound.run(main))
    except KeyboardInterrupt:
        print("interrupted")
"""

STACKS = [
    ("get_sync", "block_on"),
    ("get_sync", "get_sync"),
    ("block_on", "acquire_sync"),
    ("wait_while", "poll", "block_on"),
    ("poll", "get_sync", "wait_while"),
    ("acquire_sync", "block_on", "poll"),
    ("poll", "poll", "poll"),
]


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("stack", STACKS, ids="-".join)
def test_every_wait_ends(stack: tuple[str, ...]):
    """Each task cleans up undisturbed."""
    *lines, outcome = run(f"run(waits(*{stack}))")
    assert outcome == "interrupted"
    assert sorted(lines) == sorted(f"{name} cleaned up" for name in stack)


def test_under_a_runner():
    lines = run(
        """
        with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
            try:
                runner.run(waits("get_sync", "poll", "block_on"))
            except KeyboardInterrupt:
                print("interrupted")
        """
    )
    assert sorted(lines[:3]) == [
        "block_on cleaned up",
        "get_sync cleaned up",
        "poll cleaned up",
    ]
    assert lines[3:] == ["interrupted"]


def test_a_wait_beneath_the_task_that_main_waits_for():
    """Main waits for a task which waits in a call, and another's wait is above both."""
    lines = run(
        """
        async def main():
            begin(waits("wait_while"))
            try:
                block_on(waits("get_sync", then=int))
            finally:
                print("main")

        run(main())
        """
    )
    assert sorted(lines) == ["get_sync cleaned up", "interrupted", "main", "wait_while cleaned up"]


def test_main_may_go_on():
    """It ignores Ctrl-C; later waits above one of its own, and its timeouts, end nothing else."""
    lines = run(
        """
        async def one_more():
            await asyncio.sleep(0)
            result = block_on(asyncio.sleep(0.3, "not cancelled"))
            print("timed out" if over else "too early")
            print(result)

        over = []

        async def main():
            try:
                await waits("get_sync", "poll")
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
            await asyncio.wait(keep)
            begin(one_more())
            asyncio.get_running_loop().call_later(0.01, over.append, 1)
            try:
                async with asyncio.timeout(0.01):
                    block_on(asyncio.sleep(3600))
            except TimeoutError:
                return "went on"

        run(main())
        """
    )
    assert sorted(lines[:2]) == ["get_sync cleaned up", "poll cleaned up"]
    assert lines[2:] == ["timed out", "not cancelled", "went on"]


def test_only_main_is_ended_where_no_wait_is_above_its_own():
    lines = run(
        """
        async def other():
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                print("cancelled at the end")

        async def main():
            begin(other())
            await waits("get_sync")

        run(main())
        """
    )
    assert lines == ["get_sync cleaned up", "cancelled at the end", "interrupted"]


def test_it_comes_before_the_call():
    """Main is cancelled at its next await then, as ever: no wait above its call is ended."""
    lines = run(
        """
        flag = []

        async def above():
            block_on(asyncio.sleep(0.05))
            print("not cancelled")
            flag.append(1)
            homebound.kick()

        async def main():
            begin(above())
            interrupt()
            wait_while(lambda: not flag, homebound.current_context())
            await asyncio.sleep(3600)

        run(main())
        """
    )
    assert lines == ["not cancelled", "interrupted"]


def test_main_waits_no_more_but_for_the_call_above():
    """Its own wait is over, and its call cannot return."""
    lines = run(
        """
        async def main():
            begin(waits("block_on", then=lambda: loop.call_later(0.1, interrupt)))
            loop = asyncio.get_running_loop()
            block_on(asyncio.sleep(0.01))
            await asyncio.sleep(3600)

        run(main())
        """
    )
    assert lines == ["block_on cleaned up", "interrupted"]


@pytest.mark.parametrize("wait", ["block_on", "get_sync", "poll"])
def test_a_task_above_needs_for_its_cleanup_what_main_holds(wait: str):
    lines = run(
        f"""
        async def above(lock):
            asyncio.get_running_loop().call_soon(interrupt)
            try:
                block_on(asyncio.sleep(3600))
            finally:
                async with lock:
                    print("above")

        async def main():
            lock = homebound.Lock()
            try:
                async with lock:
                    begin(above(lock))
                    WAITS[{wait!r}]()
            finally:
                print("main")

        run(main())
        """
    )
    assert lines == ["main", "above", "interrupted"]


def test_a_second_one_is_raised_at_once():
    """As with asyncio; here a task above ignores its cancellation."""
    lines = run(
        """
        async def stubborn():
            asyncio.get_running_loop().call_soon(interrupt)
            try:
                block_on(asyncio.sleep(3600))
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_later(0.1, interrupt)
                await asyncio.sleep(3600)

        async def main():
            begin(stubborn())
            try:
                homebound.Queue().get_sync()
            finally:
                print("main")

        run(main())
        """
    )
    assert lines == ["main", "interrupted"]
