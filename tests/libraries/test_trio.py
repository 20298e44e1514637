"""trio as a guest of a homebound loop: both use the process's wakeup descriptor for signals."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Program = Callable[..., str]

pytest.importorskip("trio")

# Programs of their own: trio keeps its threads for ten seconds after their last use.
HEAD = """
import asyncio, os, signal, sys, time, warnings
import trio, homebound

warnings.simplefilter("error")

def run(main):
    if sys.argv[1] == "run":
        return homebound.run(main)
    if sys.argv[1] == "IOThread":
        with homebound.IOThread() as io:
            return homebound.block_on(io.spawn(main))
    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        return runner.run(main)

async def as_guest(main, **options):
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    trio.lowlevel.start_guest_run(
        main,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=ended.set_result,
        **options,
    )
    return (await ended).unwrap()

async def program():
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send, b"x")
            assert await theirs.recv(1) == b"x"
    assert await trio.to_thread.run_sync(lambda: 1) == 1
    await trio.sleep(0.01)
    return 42

async def with_signals():
    with trio.open_signal_receiver(signal.SIGUSR1) as received:
        os.kill(os.getpid(), signal.SIGUSR1)
        async for number in received:
            assert number == signal.SIGUSR1
            break
    return await program()
"""
runners = pytest.mark.parametrize("runner", ["run", "Runner"])


@runners
def test_a_guest_with_a_wakeup_descriptor_of_its_own(runner: str, program: Program):
    """It puts its own in while the loop runs, and warns unless it finds that at its end."""
    source = """
    async def main():
        running = asyncio.create_task(as_guest(with_signals))
        while not running.done():
            await asyncio.sleep(0.001)
            homebound.block_on(asyncio.sleep(0.001))
            await homebound.to_worker(time.sleep, 0.001)
        return running.result()

    print(run(main()), signal.set_wakeup_fd(-1))
    """
    assert program(HEAD + textwrap.dedent(source), runner) == "42 -1\n"


@runners
def test_a_guest_beside_signal_handlers_of_the_loop(runner: str, program: Program):
    """The loop's descriptor is the one in use, as trio is told."""
    source = """
    async def main():
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR2, heard.set)
        result = await as_guest(with_signals, host_uses_signal_set_wakeup_fd=True)
        os.kill(os.getpid(), signal.SIGUSR2)
        await heard.wait()
        return result

    print(run(main()), signal.set_wakeup_fd(-1))
    """
    assert program(HEAD + textwrap.dedent(source), runner) == "42 -1\n"


def test_a_guest_in_an_io_thread(program: Program):
    """No thread but the main one may set the descriptor."""
    assert program(HEAD + "print(run(as_guest(program)))\n", "IOThread") == "42\n"


@runners
def test_ctrl_c_cancels_the_guest(runner: str, program: Program):
    """SIGINT ends the host's main task, whose guest ends before the loop does."""
    source = """
    async def main():
        scope = trio.CancelScope()

        async def sleeps():
            with scope:
                await trio.sleep(3600)
            print("cancelled")

        loop = asyncio.get_running_loop()
        running = asyncio.create_task(as_guest(sleeps))
        loop.call_later(0.02, os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            scope.cancel()
            await running
            raise

    try:
        run(main())
    except KeyboardInterrupt:
        print("interrupted")
    """
    assert program(HEAD + textwrap.dedent(source), runner) == "cancelled\ninterrupted\n"
