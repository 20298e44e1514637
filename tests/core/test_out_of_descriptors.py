"""At the process's limit of descriptors our waits do what the standard library's locks do."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Program = Callable[[str], str]

PRELUDE = """
import asyncio, concurrent.futures, os, resource, socket, threading
import homebound
from homebound.testing import until

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def exhaust():
    lowest = os.dup(1)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, HARD))
    try:
        os.dup(1)
    except OSError:
        return
    raise AssertionError("there are descriptors left")


def have_some_again():
    resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))


def in_thread(call, *args):
    future = concurrent.futures.Future()
    def body():
        try:
            future.set_result(call(*args))
        except BaseException as error:
            future.set_exception(error)
    threading.Thread(target=body, daemon=True).start()
    return future


def meet(call, waits, release):
    outcome = in_thread(call)
    until(waits)
    release()
    print(outcome.result(20))
"""


def prepared(source: str) -> str:
    return PRELUDE + textwrap.dedent(source)


WAITS = {
    "event": """
        event = homebound.Event()
        exhaust()
        meet(event.wait_sync, lambda: "waiters:1" in repr(event), event.set)
    """,
    "lock": """
        lock = homebound.Lock()
        lock.acquire_sync()
        exhaust()
        meet(lock.acquire_sync, lambda: "waiters:1" in repr(lock), lock.release)
    """,
    "queue": """
        queue = homebound.Queue()
        exhaust()
        meet(queue.get_sync, lambda: "_getters[1]" in repr(queue), lambda: queue.put_nowait(True))
    """,
    "condition": """
        condition = homebound.Condition()
        def notify():
            with condition:
                condition.notify()
        def wait():
            with condition:
                return condition.wait_sync()
        exhaust()
        meet(wait, lambda: "waiters:1" in repr(condition), notify)
    """,
    "big lock": """
        homebound.big_lock.acquire()
        def take():
            with homebound.big_lock:
                return homebound.big_lock.held()
        exhaust()
        meet(take, lambda: "1 waiting" in repr(homebound.big_lock), homebound.big_lock.release)
        print(homebound.big_lock.held(), repr(homebound.big_lock))
    """,
    "block_on": """
        event = homebound.Event()
        with homebound.IOThread() as io:
            exhaust()
            meet(lambda: homebound.block_on(event.wait(), io.context),
                 lambda: "waiters:1" in repr(event), event.set)
    """,
    "join": """
        io = homebound.IOThread()
        io.start()
        exhaust()
        ended = in_thread(io.join)
        io.stop()
        print(ended.result(20) is None)
    """,
    "vcpu": """
        exhaust()
        with homebound.VCPU(0, homebound.VCPU.halt) as vcpu:
            print(vcpu.run_on_cpu(homebound.big_lock.held))
    """,
    "timeout": """
        exhaust()
        print(not in_thread(homebound.Event().wait_sync, 0.001).result(20))
        homebound.big_lock.acquire()
        print(not in_thread(homebound.big_lock.acquire, 0.001).result(20))
        homebound.big_lock.release()
    """,
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_thread_waits(program: Program, wait: str):
    said = program(prepared(WAITS[wait]))
    assert set(said.split("\n")[0].split()) == {"True"}, said
    if wait == "big lock":
        assert said.split("\n")[1].startswith("False <homebound.big_lock, free, 0 waiting>")


@pytest.mark.parametrize(
    "call",
    [
        "await homebound.to_worker(str, 'done')",
        "await asyncio.wrap_future(pool.submit(str, 'done'))",
        "await homebound.run_in(pool, str, 'done')",
        "await asyncio.get_running_loop().run_in_executor(pool, str, 'done')",
    ],
)
def test_a_worker_serves_at_the_limit_and_afterwards(program: Program, call: str):
    source = f"""
    async def main():
        exhaust()
        print({call})
        have_some_again()
        print({call})
    pool = homebound.WorkerPool(max_threads=1)
    homebound.run(main())
    pool.shutdown()
    """
    assert program(prepared(source)) == "done\ndone\n"


def test_a_stand_in_waits_for_input(program: Program):
    """The stand-in cannot sleep on the selector and a parker at once, and looks repeatedly."""
    source = """
    here, there = socket.socketpair()
    here.setblocking(False)

    async def receive():
        io.context.call_soon(there.send, b"input")
        return await asyncio.get_running_loop().sock_recv(here, 10)

    def stand_in():
        with homebound.big_lock:
            return homebound.block_on(receive())

    async def main():
        exhaust()
        await asyncio.sleep(0)
        return await asyncio.wrap_future(in_thread(stand_in))

    with homebound.IOThread() as io:
        print(homebound.run(main()))
    here.close()
    there.close()
    """
    assert program(prepared(source)) == "b'input'\n"


def test_a_forked_process_sleeps_on_a_parker_of_its_own(program: Program):
    source = """
    from homebound._os.parking import my_parker
    parents = my_parker()
    exhaust()
    child = os.fork()
    if not child:
        os._exit(my_parker() is parents)
    print(os.waitpid(child, 0)[1])
    """
    assert program(prepared(source)) == "0\n"


def test_a_thread_has_a_descriptor_again_as_soon_as_there_is_one(program: Program):
    source = """
    from homebound._os.parking import my_parker

    def kinds():
        exhaust()
        first = my_parker()
        have_some_again()
        return type(first).__name__, type(my_parker()).__name__, my_parker() is my_parker()

    print(*in_thread(kinds).result(20))
    """
    assert program(prepared(source)) == "LockParker Parker True\n"


def test_a_loop_that_cannot_be_made_leaves_nothing_open(program: Program):
    source = """
    homebound.Event().wait_sync(0)  # this thread has its parker
    lowest = os.dup(1)
    os.close(lowest)
    for left in range(4):  # a selector's, two sockets', a signal's
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + left, HARD))
        io = homebound.IOThread()
        for make in (homebound.new_event_loop, io.start):
            try:
                make()
            except OSError as error:
                print(error.strerror)
        io.stop(20)
        have_some_again()
        assert os.dup(1) == lowest
        os.close(lowest)
    with homebound.IOThread() as another:
        print(homebound.block_on(asyncio.sleep(0, "made"), another.context))
    """
    assert program(prepared(source)) == "Too many open files\n" * 8 + "made\n"
