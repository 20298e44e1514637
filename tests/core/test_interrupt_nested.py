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
    """Each task cleans up undisturbed, the main one last."""
    *lines, outcome = run(f"run(waits(*{stack}))")
    assert outcome == "interrupted"
    assert sorted(lines) == sorted(f"{name} cleaned up" for name in stack)
    assert lines[-1] == f"{stack[0]} cleaned up"


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
    assert lines[2:] == ["get_sync cleaned up", "interrupted"]


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
    assert sorted(lines[:2]) == ["get_sync cleaned up", "wait_while cleaned up"]
    assert lines[2:] == ["main", "interrupted"]


def test_main_may_go_on():
    """It ignores Ctrl-C; later waits above one of its own, and its timeouts, end nothing else."""
    lines = run(
        """
        async def one_more():
            print(block_on(asyncio.sleep(0.05, "not cancelled")))

        async def main():
            try:
                await waits("get_sync", "poll")
            except asyncio.CancelledError:
                pass
            begin(one_more())
            block_on(asyncio.sleep(0.01))
            return "went on"

        run(main())
        """
    )
    assert lines == ["poll cleaned up", "get_sync cleaned up", "not cancelled", "went on"]


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


def test_a_second_one_is_raised_at_once():
    """As with asyncio; here a task above ignores its cancellation."""
    lines = run(
        """
        async def stubborn():
            asyncio.get_running_loop().call_soon(interrupt)
            try:
                block_on(asyncio.sleep(3600))
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_soon(interrupt)
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
