"""`exclusive`: every other vCPU is out of `execute`, and no waiter hangs."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from homebound import VCPU, big_lock
from homebound._vcpu.thread import gate
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future


class Machine:
    """Some vCPUs in guest code."""

    def __init__(self, count: int) -> None:
        self.inside = [False] * count
        self.cpus = [VCPU(index, self.execute) for index in range(count)]

    def execute(self, vcpu: VCPU) -> None:
        self.inside[vcpu.index] = True
        while not vcpu.interrupt_requested:
            pass
        self.inside[vcpu.index] = False

    def wait_inside(self) -> None:
        until(lambda: all(self.inside))


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine(3)
    with ExitStack() as stack:
        for cpu in made.cpus:
            stack.enter_context(cpu)
        made.wait_inside()
        yield made


def test_all_others_are_out_and_come_back(machine: Machine):
    for cpu in machine.cpus:
        name, inside, held = cpu.exclusive(
            lambda: (threading.current_thread().name, list(machine.inside), big_lock.held())
        )
        assert name == cpu.name
        assert inside == [False] * 3
        assert not held
        machine.wait_inside()


def test_an_error_lets_the_others_go_on(machine: Machine):
    with pytest.raises(ZeroDivisionError):
        machine.cpus[0].exclusive(divmod, 1, 0)
    machine.wait_inside()


def test_inside_it_others_serve_items_and_it_nests(machine: Machine):
    first, second, _ = machine.cpus

    def stopped() -> Any:
        inside = list(machine.inside)
        assert second.run_on_cpu(lambda: threading.current_thread().name) == "vcpu1"
        return inside, first.exclusive(lambda: list(machine.inside))

    assert first.exclusive(stopped) == ([False] * 3, [False] * 3)
    machine.wait_inside()


def test_kick_and_resume_do_not_let_anybody_in(machine: Machine):
    first, second, third = machine.cpus

    def stopped() -> list[bool]:
        second.kick()
        third.pause()
        third.resume()
        second.run_on_cpu(int)
        third.run_on_cpu(int)
        return list(machine.inside)

    assert first.exclusive(stopped) == [False] * 3
    machine.wait_inside()


def queues_to_be_exclusive(cpu: VCPU) -> bool:
    with gate.guard:
        return any(each.exclusive and each.cpu is cpu for each in gate._queue)


def test_who_is_let_in_before_one_that_waits_to_be_exclusive_comes_out(
    machine: Machine, in_thread: Callable[..., Future[Any]]
):
    """It queued while a third was exclusive, when no vCPU in guest code could be interrupted."""
    go_on = threading.Event()
    runs, owns, waits = machine.cpus
    first = in_thread(owns.exclusive, go_on.wait, 20)
    until(lambda: runs._ticket)  # out, and queues for its next round
    second = in_thread(waits.exclusive, lambda: list(machine.inside))
    until(lambda: queues_to_be_exclusive(waits))
    go_on.set()
    assert first.result(20)
    assert second.result(20) == [False] * 3


@pytest.mark.parametrize("locked", [False, True], ids=["without", "with the big lock"])
def test_two_that_want_it_from_guest_code_take_turns(locked: bool):  # noqa: FBT001
    both, inside, most = threading.Barrier(2), [], []

    def stopped(vcpu: VCPU) -> None:
        inside.append(vcpu.index)
        most.append(len(inside))
        assert big_lock.held() is locked
        inside.remove(vcpu.index)

    def execute(vcpu: VCPU) -> None:
        both.wait(20)
        if locked:
            with big_lock:
                vcpu.exclusive(stopped, vcpu)
        else:
            vcpu.exclusive(stopped, vcpu)
        vcpu.stop()

    cpus = [VCPU(index, execute) for index in range(2)]
    with cpus[0], cpus[1]:
        for cpu in cpus:
            cpu.join(20)
    assert most == [1, 1]


def test_who_waits_in_guest_code_for_the_exclusive_one_is_out():
    """vcpu1 waits for an item of vcpu0, which first wants vcpu1 out of guest code."""
    both_and_we = threading.Barrier(3)
    seen: list[str] = []

    def execute(vcpu: VCPU) -> None:
        both_and_we.wait(20)
        if vcpu.index == 0:
            vcpu.exclusive(seen.append, "exclusive")
        else:
            cpus[0].run_on_cpu(seen.append, "item")
        vcpu.stop()

    cpus = [VCPU(index, execute) for index in range(2)]
    for cpu in cpus:
        cpu.start()
    both_and_we.wait(20)  # one that halts before its first round has none
    cpus[0].halt()
    for cpu in cpus:
        cpu.join(20)
    assert sorted(seen) == ["exclusive", "item"]


def test_a_stopped_vcpu_keeps_nobody_waiting(machine: Machine):
    machine.cpus[2].stop()
    assert machine.cpus[0].exclusive(lambda: 1) == 1
    assert machine.cpus[2] not in gate.cpus
