"""Background over a process's life: exit, fork, prefork workers, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from .forks import printed_by_forking

HEAD = """
import asyncio, atexit, os, signal, sys, threading, homebound
from homebound import Background, ContextClosed

background = Background("lib")
began = threading.Event()

async def answer():
    await asyncio.sleep(0)
    return os.getpid()

async def slow():
    try:
        began.set()
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0)
        print("cleaned up", flush=True)
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(program: str) -> list[str]:
    return printed_by_forking(HEAD + textwrap.dedent(program)).splitlines()


def test_the_exit_ends_work_in_flight():
    lines = run("""
    background.spawn(slow())
    began.wait()
    print("main ends", flush=True)
    """)
    assert lines == ["main ends", "cleaned up"]


def test_the_exit_with_a_daemon_thread_in_a_call():
    lines = run("""
    threading.Thread(target=lambda: background.call(slow), daemon=True).start()
    began.wait()
    """)
    assert lines == ["cleaned up"]


@pytest.mark.parametrize("used", [False, True])
def test_calls_in_the_exit(used: bool):  # noqa: FBT001
    if not used and sys.version_info[:2] == (3, 12):
        pytest.skip("Python 3.12 starts no thread while it ends")
    lines = run(f"""
    if {used}:
        background.start()
    atexit.register(lambda: print(background.call(answer) == os.getpid()))
    """)
    assert lines == ["True"]


def test_calls_after_the_threads_have_ended():
    program = """
    import atexit

    def late():
        try:
            background.call(answer)
        except ContextClosed as error:
            print(error)

    atexit.register(late)  # before homebound: so it is called after homebound's own
    """
    lines = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program) + HEAD],
        capture_output=True, text=True, timeout=50, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert lines == [
        "<Background 'lib' not started> is not started any more, as the interpreter ends"
    ]


@needs_fork
@pytest.mark.parametrize("used", [False, True], ids=["unused", "used before the fork"])
def test_each_forked_process_has_its_own(used: bool):  # noqa: FBT001
    run(f"""
    def work():
        assert not background.started and not background.stopped
        assert background.call(answer) == os.getpid()
        background.stop()
        assert background.stopped

    if {used}:
        assert background.call(answer) == os.getpid()
    for _ in range(3):  # prefork workers
        child(work)
    assert background.call(answer) == os.getpid()
    """)


@needs_fork
def test_a_fork_while_it_is_started_and_used():
    run("""
    def work():
        assert background.call(answer) == os.getpid()

    stop = threading.Event()
    def use():
        while not stop.is_set():
            background.call(answer)
            background.stop()
            background.start()
    thread = threading.Thread(target=use)
    thread.start()
    for _ in range(5):
        child(work)
    stop.set()
    thread.join()
    """)


@needs_fork
def test_what_the_parent_began_ends_in_the_child():
    run("""
    @background.sync
    async def numbers():
        yield 1
        yield 2

    iterator = numbers()
    assert next(iterator) == 1

    def work():
        try:
            next(iterator)
        except ContextClosed as error:
            assert "it was forked" in str(error)
        else:
            raise AssertionError
        assert list(numbers()) == [1, 2]

    child(work)
    assert next(iterator) == 2
    iterator.close()
    """)


def test_a_process_pool_of_forked_workers():
    run("""
    import multiprocessing, concurrent.futures

    def work(_):
        return background.call(answer) == os.getpid()

    assert background.call(answer) == os.getpid()
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork) as pool:
        assert list(pool.map(work, range(4))) == [True] * 4
    """)


def test_ctrl_c_cancels_the_call_and_waits_for_its_cleanup():
    lines = run("""
    def interrupt():
        began.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        background.call(slow)
    except KeyboardInterrupt:
        print("interrupted")
    assert background.call(answer) == os.getpid()
    """)
    assert lines == ["cleaned up", "interrupted"]


def test_an_exception_of_a_signal_handler_cancels_the_call():
    """Celery's soft time limit is one."""
    lines = run("""
    class Limit(Exception):
        pass

    def handler(*_):
        raise Limit

    def limit():
        began.wait()
        os.kill(os.getpid(), signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, handler)
    threading.Thread(target=limit).start()
    try:
        background.call(slow)
    except Limit:
        print("limited")
    assert background.call(answer) == os.getpid()
    """)
    assert lines == ["cleaned up", "limited"]


def test_ctrl_c_as_it_starts():
    lines = run("""
    interrupted = threading.Event()

    def factory():
        os.kill(os.getpid(), signal.SIGINT)
        interrupted.wait(20)
        return homebound.new_event_loop()

    def handler(*_):
        interrupted.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    background = Background("lib", loop_factory=factory)
    try:
        background.call(answer)
    except KeyboardInterrupt:
        print("interrupted")  # its thread has started, or, if that was not known yet, ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert background.call(answer) == os.getpid()
    background.stop()
    while threading.active_count() > 1:
        threading.Event().wait(0.01)
    """)
    assert lines == ["interrupted"]


def test_ctrl_c_before_it_waits_for_its_start():
    lines = run("""
    def interrupted(self, parker):
        homebound.IOThread._await_start = wait
        raise KeyboardInterrupt

    wait, homebound.IOThread._await_start = homebound.IOThread._await_start, interrupted
    background = Background("lib")
    try:
        background.call(answer)
    except KeyboardInterrupt:
        print("interrupted")
    assert background.call(answer) == os.getpid()
    background.stop()
    while threading.active_count() > 1:
        threading.Event().wait(0.01)
    """)
    assert lines == ["interrupted"]


def test_ctrl_c_in_an_iterator_of_it():
    lines = run("""
    @background.sync
    async def numbers():
        yield 1
        await slow()

    def interrupt():
        began.wait()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        for number in numbers():
            print(number)
    except KeyboardInterrupt:
        print("interrupted")
    """)
    assert lines == ["1", "cleaned up", "interrupted"]
