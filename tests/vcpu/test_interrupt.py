"""Ctrl-C while the main thread waits for a vCPU: the wait ends at once, and later calls work."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAD = """
import asyncio, os, signal, sys, threading, time, homebound
from homebound import VCPU, big_lock
from homebound._threads.wait_while import waits

inside, leave = threading.Event(), threading.Event()
ran = []

def execute(vcpu):  # heeds no interruption until it may leave
    inside.set()
    leave.wait(20)
    while not vcpu.interrupt_requested:
        pass

cpu = VCPU(0, execute)
cpu.start()
inside.wait(20)

def asleep():
    # Where the main thread sleeps; nothing if it has a core, or wants one.
    main = threading.main_thread()
    with open(f"/proc/self/task/{main.native_id}/stat") as file:
        state = file.read().rpartition(")")[2].split()[0]
    frame = sys._current_frames()[main.ident]
    return state == "S" and (id(frame), frame.f_lasti)

def interrupt_who_waits():
    def interrupt():
        while not waits():  # the main thread is about to sleep
            pass
        # It does; between two lines of ours, anything may be half done. A moment later it sleeps at
        # the same place: it did not wait for the interpreter there, nor look round for signals,
        # which a sleeping main thread does every 0.1 seconds.
        before = None
        while not (place := asleep()) or place != before:
            before = place
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()

def wait_and_be_interrupted():
    interrupt_who_waits()
    held = big_lock.held()
    try:
        CALL
    except KeyboardInterrupt:
        print("interrupted", not leave.is_set(), big_lock.held() is held, list(waits()))

def go_on():
    leave.set()
    AFTER
    cpu.stop()
    print(ran, cpu)
"""

WHERE = {
    "thread without a context": """
        wait_and_be_interrupted()
        go_on()
    """,
    "holder of the big lock": """
        with big_lock:
            wait_and_be_interrupted()
            go_on()
    """,
    "main loop": """
        async def main():
            # asyncio's own handling of Ctrl-C would cancel the main task, and go on waiting.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            wait_and_be_interrupted()
            await asyncio.sleep(0)
            go_on()
        homebound.run(main())
    """,
    "main loop, the second time": """
        def twice():
            os.kill(os.getpid(), signal.SIGINT)  # the first has the runner cancel the main task
            wait_and_be_interrupted()
        async def main():
            twice()
            go_on()
        try:
            homebound.run(main())
        except KeyboardInterrupt:
            pass
    """,
    "loop that is not the main one": """
        # The main thread is the home of a loop that is not the main one.
        async def main():
            wait_and_be_interrupted()
            go_on()
        loop = homebound.new_event_loop()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        loop.run_until_complete(main())
        loop.close()
    """,
}

# What is called, what is done later, and what has run by then.
CALLS = {
    "run_on_cpu": (
        'cpu.run_on_cpu(ran.append, "item")',
        'cpu.run_on_cpu(ran.append, "later")',
        ["item", "later"],
    ),
    "exclusive": (
        'cpu.exclusive(ran.append, "item")',
        'cpu.exclusive(ran.append, "later")',
        ["item", "later"],
    ),
    "pause": (
        "cpu.pause()",
        "cpu.pause(); inside.clear(); cpu.resume(); ran.append(inside.wait(20))",
        [True],
    ),
    "join": ("cpu.join()", 'cpu.run_on_cpu(ran.append, "later")', ["later"]),
    "stop": ("cpu.stop()", "cpu.join()", []),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("call", CALLS)
def test_it_ends_the_wait(call: str, where: str):
    called, after, ran = CALLS[call]
    head = HEAD.replace("CALL", called).replace("AFTER", after)
    program = head + textwrap.dedent(WHERE[where])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:-1] == [
        "interrupted True True []",
        f"{ran} <VCPU 0 'vcpu0' stopped, 0 work items>",
    ]
