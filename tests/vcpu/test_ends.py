"""The process ends, or forks, while vCPUs are in guest code: it does so soon, and cleanly."""

from __future__ import annotations

import os
import textwrap

import pytest

from ..core.forks import printed_by_forking

PRELUDE = """
import os, sys, threading, homebound
from homebound import VCPU, ContextClosed, big_lock

class Guest:
    # Computes until it is interrupted.
    def __init__(self):
        self.began = threading.Event()
    def __call__(self, vcpu):
        self.began.set()
        while not vcpu.interrupt_requested:
            pass

def started(index=0):
    guest = Guest()
    cpu = VCPU(index, guest)
    cpu.start()
    assert guest.began.wait(20)
    return cpu

def fresh():
    # All that vCPUs can do, in the child.
    with started(0) as first, started(1) as second:
        assert first.run_on_cpu(second.run_on_cpu, lambda: 2) == 2
        assert first.exclusive(lambda: 3) == 3
        second.pause()
        second.resume()

def start(self):
    return self
VCPU.__enter__ = start  # the tests' are in guest code when they are entered
"""


def run(program: str) -> list[str]:
    text = PRELUDE + textwrap.dedent(program)
    return printed_by_forking(text, "-X", "faulthandler").split("\n")[:-1]


class TestInterpreterExit:
    def test_in_guest_code(self):
        assert run(
            """
            import atexit
            cpus = [started(index) for index in range(2)]
            atexit._run_exitfuncs()  # what the interpreter does next, if nothing is left for it
            print(*(cpu._thread.is_alive() for cpu in cpus))
            """
        ) == ["False False"]

    def test_halted_paused_and_in_a_work_item(self):
        """Items queued before are run; a later request is refused and does not hang."""
        lines = run(
            """
            halted, paused, busy = VCPU(0, VCPU.halt), started(1), started(2)
            halted.start()
            paused.pause()
            began, asked = threading.Event(), threading.Event()
            def item():
                began.set()
                asked.wait(20)
                print("first", flush=True)
            busy.async_run_on_cpu(item)
            assert began.wait(20)
            busy.async_run_on_cpu(print, "second")
            asked.set()
            """
        )
        assert lines == ["first", "second"]

    def test_while_vcpus_wait(self):
        """For a work item, for being exclusive, in guest code."""
        run(
            """
            both = threading.Barrier(3)
            cpus = []
            def execute(vcpu):
                both.wait(20)
                while not vcpu.interrupt_requested:
                    try:
                        cpus[1 - vcpu.index].run_on_cpu(int)
                        vcpu.exclusive(int)
                    except ContextClosed:
                        return
            cpus = [VCPU(index, execute) for index in range(2)]
            for cpu in cpus:
                cpu.start()
            both.wait(20)
            """
        )

    def test_in_a_main_loop_that_is_left_with_an_error(self):
        lines = run(
            """
            async def main():
                started()
                raise SystemExit
            try:
                homebound.run(main())
            finally:
                print("left")
            """
        )
        assert lines == ["left"]

    def test_a_guest_that_does_not_look_is_not_waited_for_long(self):
        """It is given a second; it is a daemon, so the process ends all the same."""
        lines = run(
            """
            import time
            began = threading.Event()
            def execute(vcpu):
                began.set()
                while True:
                    time.sleep(0.01)
            VCPU(0, execute).start()
            assert began.wait(20)
            print("ends")
            """
        )
        assert lines == ["ends"]

    def test_a_plain_thread_waits_for_a_vcpu(self):
        """A daemon: it is told that the vCPU has ended, or is frozen with its wait."""
        run(
            """
            cpu = started()
            waits = threading.Event()
            def wait():
                waits.set()
                try:
                    while True:
                        cpu.run_on_cpu(int)
                except ContextClosed:
                    cpu.join()
            threading.Thread(target=wait, daemon=True).start()
            assert waits.wait(20)
            """
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
class TestFork:
    @pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
    def test_by_the_main_thread(self, leave: str):
        lines = run(
            f"""
            cpus = [started(index) for index in range(2)]
            def body():
                for cpu in cpus:
                    for ask in (cpu.run_on_cpu, cpu.exclusive, cpu.async_run_on_cpu):
                        try:
                            ask(int)
                        except ContextClosed:
                            pass
                        else:
                            raise AssertionError(ask)
                    cpu.kick()
                    cpu.pause()
                    cpu.resume()
                    cpu.stop()
                fresh()
            child(body, {leave})
            print(*(cpu.run_on_cpu(lambda: 1) for cpu in cpus))
            for cpu in cpus:
                cpu.stop()
            """
        )
        assert lines == ["1 1"]

    def test_by_a_vcpu_in_guest_code_and_by_one_in_a_work_item(self):
        """The child's one thread was a vCPU: it is a plain one now."""
        lines = run(
            """
            def execute(vcpu):
                child(fresh)
                vcpu.halt()
            with started(1) as other:
                cpu = VCPU(0, execute)
                cpu.start()
                cpu.run_on_cpu(child, fresh)
                cpu.exclusive(child, fresh)
                cpu.stop()
                print(other.run_on_cpu(lambda: "goes on"))
            """
        )
        assert lines == ["goes on"]

    def test_by_a_task_of_a_main_loop_that_waits_for_a_vcpu(self):
        lines = run(
            """
            async def main():
                with started() as cpu:
                    cpu.run_on_cpu(child, fresh)
                    child(fresh)
                    return cpu.run_on_cpu(lambda: "goes on")
            print(homebound.run(main()))
            """
        )
        assert lines == ["goes on"]

    def test_while_the_guard_is_taken(self):
        """By a thread that the child does not have: it would be locked for ever there."""
        lines = run(
            """
            from homebound._vcpu.thread import gate
            with started():
                taken, let_go = threading.Event(), threading.Event()
                def take():
                    with gate.guard:
                        taken.set()
                        let_go.wait(20)
                thread = threading.Thread(target=take)
                thread.start()
                assert taken.wait(20)
                child(fresh)
                let_go.set()
                thread.join()
            print("done")
            """
        )
        assert lines == ["done"]

    def test_in_a_storm(self):
        """At whatever others are; they wait while the child is looked at, which takes longer."""
        lines = run(
            """
            def again():  # no guest code computes, so that twenty of them take no time
                with VCPU(1, VCPU.halt) as other:
                    other.start()
                    assert other.run_on_cpu(other.exclusive, lambda: 1) == 1
            with started() as cpu:
                stop, storming, turns = threading.Event(), threading.Event(), []
                os.register_at_fork(after_in_parent=storming.clear)
                def storm():
                    while not stop.is_set():
                        storming.wait()
                        cpu.kick()
                        cpu.run_on_cpu(int)
                        turns.append(1)
                threads = [threading.Thread(target=storm) for _ in range(2)]
                for thread in threads:
                    thread.start()
                for _ in range(20):
                    turns.clear()
                    storming.set()
                    while not turns:
                        pass
                    child(again)
                stop.set()
                storming.set()
                for thread in threads:
                    thread.join()
            print("done")
            """
        )
        assert lines == ["done"]
