"""Ctrl-C: it ends the main thread's wait, wherever that is, and cleanup is waited for."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import asyncio, os, signal, threading, homebound
from homebound import big_lock, block_on, current_context, wait_while

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

async def slow(started=interrupt):
    try:
        started()
        await asyncio.sleep(30)
    finally:
        await asyncio.sleep(0.001)
        print("cleaned up")
"""


def run(program: str) -> list[str]:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-X",
            "faulthandler",
            "-c",
            HEAD + textwrap.dedent(program),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("where", ["busy", "asleep"])
def test_run(where: str):
    lines = run(
        f"""
        async def main():
            if {where!r} == "busy":
                interrupt()
            else:
                later = threading.Thread(target=interrupt).start
                asyncio.get_running_loop().call_later(0.05, later)
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0.001)
                print("cleaned up")
        try:
            homebound.run(main())
        except KeyboardInterrupt:
            print("interrupted", current_context(), big_lock.held())
        """
    )
    assert lines == ["cleaned up", "interrupted None False"]


def test_big_lock_acquire():
    """The interrupted thread leaves the queue, so the lock is not handed to it."""
    lines = run(
        """
        held, leave = threading.Event(), threading.Event()
        def hold():
            with big_lock:
                held.set()
                leave.wait(10)
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(10)
        def when_queued():
            while " 1 waiting" not in repr(big_lock):
                pass
            interrupt()
        threading.Thread(target=when_queued).start()
        try:
            big_lock.acquire()
        except KeyboardInterrupt:
            print("interrupted", big_lock.held(), repr(big_lock)[-11:-1])
        leave.set()
        thread.join()
        with big_lock:
            print("free again")
        """
    )
    assert lines == ["interrupted False  0 waiting", "free again"]


def test_block_on_in_a_thread_without_a_context():
    lines = run(
        """
        with homebound.IOThread() as io:
            try:
                block_on(slow(), io.context)
            except KeyboardInterrupt:
                print("interrupted")
            print(block_on(asyncio.sleep(0, "goes on"), io.context))
        """
    )
    assert lines == ["cleaned up", "interrupted", "goes on"]


def test_block_on_at_each_call_that_it_makes():
    """Ctrl-C in each call of the waiting thread: a coroutine that has begun is cleaned up."""
    lines = run(
        """
        import itertools, sys
        left = -1
        def trace(frame, *_):
            global left
            if frame.f_code.co_filename.endswith("_weakrefset.py"):
                return  # what the callback of a weak reference raises is dropped
            left -= 1
            if left == -1:
                raise KeyboardInterrupt

        def interrupted_at(call):
            global left
            did = []
            async def work():
                try:
                    did.append("began")
                    await asyncio.sleep(0.001)
                finally:
                    await asyncio.sleep(0)
                    did.append("cleaned up")
            coro, left = work(), call
            sys.settrace(trace)
            try:
                block_on(coro, io.context)
            except KeyboardInterrupt:
                block_on(asyncio.sleep(0), io.context)  # it begins before that, if it ever does
                assert did in ([], ["began", "cleaned up"]), (call, did)
                coro.close()
                return True
            finally:
                sys.settrace(None)
            return False

        with homebound.IOThread() as io:
            calls = itertools.takewhile(interrupted_at, itertools.count())
            print(len(list(calls)) > 10)
        """
    )
    assert lines == ["True"]


def test_block_on_at_home():
    lines = run(
        """
        async def work():
            # In a callback: asyncio's own handling of Ctrl-C would cancel the task of a runner.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            done = asyncio.get_running_loop().create_future()
            def callback():
                try:
                    block_on(slow(lambda: asyncio.get_running_loop().call_later(0.01, interrupt)))
                except KeyboardInterrupt:
                    print("interrupted")
                print(block_on(asyncio.sleep(0, "goes on")))
                done.set_result("done")
            asyncio.get_running_loop().call_soon(callback)
            return await done
        print(homebound.run(work()))
        """
    )
    assert lines == ["cleaned up", "interrupted", "goes on", "done"]


def test_block_on_at_home_as_its_end_comes():
    """The awaited task is done, which does not make the interrupt an exception of the task."""
    lines = run(
        """
        async def work():
            loop = asyncio.get_running_loop()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            def end_and_interrupt(future):
                future.set_result(None)
                loop.call_soon(interrupt)  # next, in the same iteration as the task's end
            async def wait():
                future = loop.create_future()
                loop.call_soon(end_and_interrupt, future)
                await future
                print("ends")
            try:
                block_on(wait())
            except KeyboardInterrupt:
                print("interrupted")
        homebound.run(work())
        """
    )
    assert lines == ["ends", "interrupted"]


def test_block_on_by_a_lock_holder():
    """The main loop runs in another thread; the process's main thread stands in."""
    lines = run(
        """
        ready, stop = threading.Event(), None
        async def main():
            global stop
            stop = asyncio.get_running_loop().create_future()
            loop = asyncio.get_running_loop()
            ready.set()
            await stop
            return "main loop ends"
        thread = threading.Thread(target=lambda: print(homebound.run(main())))
        thread.start()
        ready.wait(10)
        with big_lock:
            try:
                block_on(slow(lambda: asyncio.get_running_loop().call_later(0.01, interrupt)))
            except KeyboardInterrupt:
                print("interrupted", big_lock.held())
            print(block_on(asyncio.sleep(0, "goes on")))
            stop.set_result(None)
        thread.join()
        """
    )
    assert lines == ["cleaned up", "interrupted True", "goes on", "main loop ends"]


def test_wait_while():
    lines = run(
        """
        async def main():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            asyncio.get_running_loop().call_later(0.01, interrupt)
            try:
                wait_while(lambda: True)
            except KeyboardInterrupt:
                print("interrupted", big_lock.held(), current_context() is not None)
            await asyncio.sleep(0.001)
            print("goes on")
        homebound.run(main())
        """
    )
    assert lines == ["interrupted True True", "goes on"]


def test_a_worker_stands_in_as_ctrl_c_comes():
    """The signal breaks the main thread's sleep while another thread has the lock."""
    lines = run(
        """
        async def main():
            held, leave = threading.Event(), threading.Event()
            def hold():
                with big_lock:
                    held.set()
                    interrupt()
                    leave.wait(0.05)
            threading.Thread(target=hold).start()
            try:
                await asyncio.sleep(30)
            finally:
                print("cleaned up", big_lock.held())
        try:
            homebound.run(main())
        except KeyboardInterrupt:
            print("interrupted", big_lock.held())
        """
    )
    assert lines == ["cleaned up True", "interrupted False"]


def test_the_main_thread_waits_for_the_lock_as_ctrl_c_comes():
    """The handler runs when the thread has the lock, and all its fields say that it is awake."""
    lines = run(
        """
        async def main():
            context, handled = current_context(), threading.Event()
            def handle(*_):
                handled.set()
                raise KeyboardInterrupt
            def hold():
                with big_lock:
                    context.loop.signal.set()  # as an event would: the main thread wakes
                    while " 1 waiting" not in repr(big_lock):
                        pass
                    interrupt()
                    handled.wait(10)
            signal.signal(signal.SIGINT, handle)
            thread = threading.Thread(target=hold)
            thread.start()
            try:
                wait_while(lambda: True)
            except KeyboardInterrupt:
                state = context._stand_in
                print("interrupted", big_lock.held(), state.lent, state.sleeps_until)
            thread.join()
        homebound.run(main())
        """
    )
    assert lines == ["interrupted True False None"]


@pytest.mark.parametrize("kind", ["SystemExit", "TimeoutError", "KeyboardInterrupt"])
def test_what_a_handler_raises_as_the_main_loop_waits_for_the_lock(kind: str):
    """The cleanup runs under the lock, once the thread that holds it has released it."""
    lines = run(
        f"""
        def handle(*_):
            handled.set()
            raise {kind}

        def device():
            with big_lock:
                inside.append("device")
                loop.signal.set()  # as an event would: the main loop wakes, and waits
                while " 1 waiting" not in repr(big_lock):
                    pass
                os.kill(os.getpid(), signal.SIGTERM)
                handled.wait(10)
                inside.clear()

        async def main():
            global loop
            loop = asyncio.get_running_loop()
            threading.Thread(target=device).start()
            try:
                await asyncio.sleep(30)
            finally:
                print("cleaned up", inside, big_lock.held())

        handled, inside = threading.Event(), []
        signal.signal(signal.SIGTERM, handle)
        try:
            homebound.run(main())
        except {kind}:
            print("raised", big_lock.held())
        """
    )
    assert lines == ["cleaned up [] True", "raised False"]


@pytest.mark.parametrize("how", ["task.wake()", "context.enter(task)"])
@pytest.mark.parametrize("wait", ["await done", "wait_while(lambda: not done.done())"])
def test_a_handler_in_the_sleep_runs_no_task(how: str, wait: str):
    """Another thread may hold the big lock then: what the handler wakes is queued."""
    lines = run(
        f"""
        async def main():
            context, done = current_context(), asyncio.get_running_loop().create_future()
            handled = threading.Event()

            async def work():
                await homebound.suspend()
                print("runs under the lock:", big_lock.held(), handled.is_set())
                done.set_result(None)
                homebound.kick()

            def handle(*_):
                {how}
                handled.set()

            def stand_in():
                with big_lock:
                    os.kill(os.getpid(), signal.SIGUSR1)
                    handled.wait(10)
                    print("handled", done.done())

            task = context.spawn(work())
            await asyncio.sleep(0)
            signal.signal(signal.SIGUSR1, handle)
            threading.Thread(target=stand_in).start()
            {wait}
        homebound.run(main())
        """
    )
    assert lines == ["handled False", "runs under the lock: True True"]


def test_io_thread_stop():
    lines = run(
        """
        leave = threading.Event()
        async def blocks():
            interrupt()
            leave.wait(0.05)
        io = homebound.IOThread()
        io.start()
        try:
            io.spawn(blocks())
            io.stop()
        except KeyboardInterrupt:
            print("interrupted")
        leave.set()
        io.stop()
        print(io)
        """
    )
    assert lines[0] == "interrupted"
    assert "ended" in lines[1]
