"""asyncio: subprocesses and signals, on the main home and in I/O threads."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable

    from homebound import IOThread

    Run = Callable[..., Any]

UPPER = "import sys; sys.stdout.write(sys.stdin.read().upper())"
PIPES: dict[str, Any] = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}


async def upper(text: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", UPPER, **PIPES)
    output, _ = await process.communicate(text)
    assert process.returncode == 0
    return output


async def killed() -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", **PIPES)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await process.wait()
    finally:
        process.kill()
        await process.communicate()
    assert process.returncode is not None
    return process.returncode


def test_main_home(run: Run):
    async def main() -> None:
        assert await asyncio.gather(*(upper(b"a%d" % n) for n in range(3))) == [b"A0", b"A1", b"A2"]
        assert await killed() == -signal.SIGKILL
        assert homebound.block_on(upper(b"nested")) == b"NESTED"

    run(main())


@pytest.mark.filterwarnings("ignore:'get_child_watcher' is deprecated:DeprecationWarning")
def test_several_homes(run: Run, io: IOThread, io2: IOThread):
    # 3.12 and 3.13 ignore a warning of their own through the process's filters: of two threads that
    # start subprocesses at once, one may end the other's filter.
    async def main() -> None:
        tasks = [io.spawn(upper(b"x")), io2.spawn(upper(b"y")), upper(b"z")]
        assert await asyncio.gather(*tasks) == [b"X", b"Y", b"Z"]
        assert await io.spawn(killed()) == -signal.SIGKILL

    run(main())


def test_signal_handler(run: Run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, heard.set)
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            await heard.wait()
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


@pytest.mark.parametrize("how", ["run", "Runner"])
def test_ctrl_c(program: Callable[..., str], how: str):
    printed = program(
        """
        import asyncio, os, signal, sys
        import homebound

        async def main():
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                print("cleaned up")
                raise

        try:
            if sys.argv[1] == "run":
                homebound.run(main())
            else:
                with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
                    runner.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
        how,
    )
    assert printed.split("\n")[:2] == ["cleaned up", "interrupted"]
