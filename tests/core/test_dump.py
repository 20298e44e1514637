"""dump(): its text about contexts, tasks, threads and the big lock."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import threading

import pytest

import homebound
from homebound.testing import settle, until


def dumped() -> str:
    out = io.StringIO()
    homebound.dump(out)
    return out.getvalue()


async def sleeper() -> None:
    await homebound.suspend()


def test_it_names_contexts_tasks_and_what_they_wait_for():
    async def main() -> str:
        future = asyncio.get_running_loop().create_future()

        async def waits_for_it() -> None:
            await future

        with homebound.IOThread("disk") as disk:
            far = disk.context.spawn(sleeper(), name="far")
            near = asyncio.create_task(waits_for_it(), name="near")
            await asyncio.sleep(0)  # `near` begins; settling alone does not wait for that
            await settle(disk.context)
            text = dumped()
            future.set_result(None)
            await near
            far.cancel()
        return text

    text = homebound.run(main())
    assert "big lock: held by thread 'MainThread', no thread waits" in text
    assert "context 'main' (main), home thread 'MainThread', running" in text
    assert "context 'disk', home thread 'disk', asleep" in text
    assert "task 'far': suspended" in text
    assert "in sleeper" in text
    assert "task 'near': waits for <Future pending" in text
    assert "in dumped" in text  # the running home's stack


def test_it_names_threads_that_wait():
    with homebound.IOThread("disk") as disk:
        task = disk.context.spawn(sleeper(), name="far")

        def wait() -> None:
            with pytest.raises(asyncio.CancelledError):
                homebound.block_on(task)

        thread = threading.Thread(target=wait, name="waiter")
        thread.start()
        until(lambda: "thread 'waiter' waits in block_on(<Task" in dumped())
        task.cancel()
        thread.join()
    assert "waiter" not in dumped()


def test_it_names_the_queue_of_the_big_lock():
    def wait() -> None:
        with homebound.big_lock:
            pass

    thread = threading.Thread(target=wait, name="second")
    with homebound.big_lock:
        thread.start()
        until(lambda: "threads waiting in this order: 'second'" in dumped())
    thread.join()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal here")
def test_on_a_signal_even_while_the_loop_is_stuck():
    code = """
import homebound, os, signal
async def main():
    homebound.dump_on(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(1000):
        pass
homebound.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env={**os.environ},
    )
    assert "context 'main' (main)" in done.stderr
    assert "in main" in done.stderr


def test_undoing_the_signal():
    before = signal.getsignal(signal.SIGUSR1)
    homebound.dump_on(signal.SIGUSR1)()
    assert signal.getsignal(signal.SIGUSR1) is before
