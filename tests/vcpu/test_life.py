"""Start, kick, halt, pause, stop; what `execute` raises."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import VCPU, ContextClosed, ContextError, WouldDeadlock, big_lock
from homebound.testing import until

from ..locks.interruptions import EARLY_ENDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    InThread = Callable[..., Future[Any]]


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """What goes to threading.excepthook."""
    errors: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: errors.append(args.exc_value))
    return errors


def test_executes_in_its_thread_without_the_big_lock():
    seen = []

    def execute(vcpu: VCPU) -> None:
        seen.append((threading.current_thread().name, big_lock.held(), vcpu.index))
        vcpu.stop()

    cpu = VCPU(3, execute)
    cpu.start()
    cpu.join(20)
    assert seen == [("vcpu3", False, 3)]
    assert repr(cpu) == "<VCPU 3 'vcpu3' stopped, 0 work items>"


def test_kick_ends_a_round_and_the_next_begins(vcpu: VCPU, guest: Any):
    for _ in range(20):
        rounds = guest.rounds
        guest.began.clear()
        vcpu.kick()
        assert guest.began.wait(20)
        assert guest.rounds > rounds


def test_a_halted_vcpu_sleeps_until_kicked():
    rounds = threading.Semaphore(0)

    def execute(vcpu: VCPU) -> None:
        vcpu.halt()
        rounds.release()

    with VCPU(0, execute) as cpu:
        for _ in range(20):
            assert rounds.acquire(timeout=20)
            assert cpu.run_on_cpu(lambda: cpu.halted)  # serving an item does not wake it
            assert not rounds.acquire(blocking=False)
            cpu.kick()
        assert rounds.acquire(timeout=20)


def test_a_kick_during_the_round_is_not_lost_by_halting():
    began, kicked, rounds = threading.Event(), threading.Event(), []

    def execute(vcpu: VCPU) -> None:
        rounds.append(1)
        if len(rounds) == 1:  # it found no work; now there is some, and a kick
            began.set()
            assert kicked.wait(20)
        vcpu.halt()

    with VCPU(0, execute) as cpu:
        assert began.wait(20)  # a kick before the round began would be seen by it
        cpu.kick()
        kicked.set()
        until(lambda: cpu.run_on_cpu(lambda: cpu.halted))
        assert len(rounds) >= 2


def test_has_work_decides_whether_a_kick_wakes():
    work = [1]
    done = threading.Semaphore(0)

    def execute(vcpu: VCPU) -> None:
        if work:
            work.pop()
            done.release()
        vcpu.halt()

    with VCPU(0, execute, has_work=lambda _: work) as cpu:
        assert done.acquire(timeout=20)
        until(lambda: cpu.halted)
        cpu.kick()
        cpu.run_on_cpu(int)
        assert cpu.halted
        work.append(1)
        cpu.kick()
        assert done.acquire(timeout=20)


def test_halt_before_start():
    rounds = []
    cpu = VCPU(0, lambda _: rounds.append(1))
    cpu.halt()
    with cpu:
        cpu.run_on_cpu(int)
        assert not rounds
        assert repr(cpu) == "<VCPU 0 'vcpu0' halted, 0 work items>"


def test_interrupt_is_called_by_whoever_wants_it_out():
    asleep, wanted = threading.Event(), threading.Event()

    def execute(vcpu: VCPU) -> None:
        asleep.set()
        while not vcpu.interrupt_requested:
            wanted.wait(20)
        wanted.clear()

    with VCPU(0, execute, interrupt=wanted.set) as cpu:
        assert asleep.wait(20)
        assert cpu.run_on_cpu(lambda: 1) == 1


def test_pause_waits_until_it_is_out_and_resume_goes_on(vcpu: VCPU, guest: Any):
    for _ in range(20):
        vcpu.pause()
        assert not guest.inside
        rounds = guest.rounds
        assert vcpu.run_on_cpu(lambda: guest.rounds) == rounds  # items are served, no round begins
        vcpu.kick()
        vcpu.pause()
        assert "paused" in repr(vcpu)
        assert guest.rounds == rounds
        guest.began.clear()
        vcpu.resume()
        assert guest.began.wait(20)


def test_pause_before_start_and_stop_of_a_paused_one(guest: Any):
    cpu = VCPU(0, guest)
    cpu.pause()
    with cpu:
        cpu.run_on_cpu(int)
        assert not guest.rounds
    assert not guest.rounds


def test_two_vcpus_that_pause_each_other_do_not_hang():
    both = threading.Barrier(2)
    rounds: list[int] = []

    def execute(vcpu: VCPU) -> None:
        if len(rounds) < 2:
            both.wait(20)
            cpus[1 - vcpu.index].pause()
            rounds.append(vcpu.index)
            cpus[1 - vcpu.index].resume()
        vcpu.halt()

    cpus = [VCPU(index, execute) for index in range(2)]
    with cpus[0], cpus[1]:
        while len(rounds) < 2:
            for cpu in cpus:
                cpu.resume()  # both may have been paused by the other
    assert sorted(rounds) == [0, 1]


def test_an_exception_stops_it_is_reported_and_raised_again(reported: list[Any]):
    def execute(_: VCPU) -> None:
        raise LookupError("triple fault")

    cpu = VCPU(0, execute)
    cpu.start()
    for wait in (cpu.join, cpu.stop, cpu.join):
        with pytest.raises(LookupError, match="triple fault"):
            wait(20)
    assert [type(each) for each in reported] == [LookupError]
    assert "failed" in repr(cpu)
    with pytest.raises(ContextClosed, match=r"run_on_cpu.*stopped \(execute raised.*triple fault"):
        cpu.run_on_cpu(int)


def test_an_exception_of_the_halt_condition_too(reported: list[Any]):
    def has_work(_: VCPU) -> bool:
        raise LookupError("no such line")

    cpu = VCPU(0, VCPU.halt, has_work=has_work)
    cpu.start()
    with pytest.raises(LookupError):
        cpu.join(20)
    assert len(reported) == 1


def test_a_hook_that_raises_leaves_no_waiter(monkeypatch: pytest.MonkeyPatch, in_thread: InThread):
    """Whatever goes wrong in the thread, waiters for an item get an error."""

    def hook(_: object) -> None:
        raise SystemExit

    entered, go_on = threading.Event(), threading.Event()

    def first() -> None:
        entered.set()
        assert go_on.wait(20)
        raise LookupError

    monkeypatch.setattr(threading, "excepthook", hook)
    cpu = VCPU(0, VCPU.halt)
    cpu.start()
    cpu.async_run_on_cpu(first)
    assert entered.wait(20)
    second = in_thread(cpu.run_on_cpu, lambda: 2)
    until(lambda: cpu._work)
    go_on.set()
    with pytest.raises(SystemExit):
        cpu.join(20)
    assert second.exception(20) is None or isinstance(second.exception(), ContextClosed)


@pytest.mark.parametrize("fail", EARLY_ENDS)
def test_a_thread_that_ends_before_its_own_code(
    fail: Callable[[], AbstractContextManager[None]], reported: list[Any]
):
    cpu = VCPU(0, VCPU.halt)
    with fail():
        cpu.start()
        with pytest.raises(RuntimeError, match="has ended"):
            cpu.join(20)
    with pytest.raises(ContextClosed):
        cpu.run_on_cpu(int)
    with pytest.raises(RuntimeError, match="has ended"):
        cpu.stop(20)
    assert [type(error) for error in reported] == [MemoryError]


def test_system_exit_is_logged(
    reported: list[BaseException | None], caplog: pytest.LogCaptureFixture
):
    """Python's own threading.excepthook says nothing of it."""
    leaves = SystemExit(3)

    def execute(_: VCPU) -> None:
        raise leaves

    def leave() -> None:
        raise leaves

    halted = VCPU(0, VCPU.halt)
    halted.start()
    halted.async_run_on_cpu(leave)
    assert halted.run_on_cpu(lambda: 2) == 2
    halted.stop()
    cpu = VCPU(1, execute)
    cpu.start()
    with pytest.raises(SystemExit):
        cpu.join(20)
    assert reported == [leaves, leaves]
    assert caplog.messages == [
        "SystemExit(3) in a work item of VCPU 'vcpu0', which goes on",
        "SystemExit(3) in VCPU 'vcpu1' stops it",
    ]
    caplog.clear()  # the traceback refers to the thread's frames


def test_stop_serves_what_was_queued_and_refuses_what_comes(vcpu: VCPU, in_thread: InThread):
    began, go_on, order = threading.Event(), threading.Event(), []

    def first() -> None:
        began.set()
        assert go_on.wait(20)
        order.append("first")

    vcpu.async_run_on_cpu(first)
    assert began.wait(20)
    vcpu.async_run_on_cpu(order.append, "second")
    stopped = in_thread(vcpu.stop)
    until(lambda: vcpu._stopping)
    for ask in (vcpu.run_on_cpu, vcpu.async_run_on_cpu, vcpu.exclusive):
        with pytest.raises(ContextClosed, match="stopped and runs no more"):
            ask(int)
    go_on.set()
    stopped.result(20)
    assert order == ["first", "second"]


def test_misuse_says_so():
    cpu = VCPU(0, VCPU.halt)
    cpu.stop()  # never started: nothing to do
    with pytest.raises(ContextError, match=r"join.*not started; call start"):
        cpu.join()
    with pytest.raises(ContextError, match=r"run_on_cpu.*runs nothing before start"):
        cpu.run_on_cpu(int)
    with cpu:
        with pytest.raises(ContextError, match="started before; make another"):
            cpu.start()
        with pytest.raises(WouldDeadlock, match=r"thread of .* itself; call stop"):
            cpu.run_on_cpu(cpu.join)
        with pytest.raises(TimeoutError, match=r"join.*has not ended after 0\.01 s"):
            cpu.join(0.01)


def test_dump_shows_who_waits(vcpu: VCPU, in_thread: InThread):
    began, go_on = threading.Event(), threading.Event()

    def item() -> None:
        began.set()
        assert go_on.wait(20)

    def dumped() -> str:
        text = io.StringIO()
        homebound.dump(text)
        return text.getvalue()

    waiter = in_thread(vcpu.run_on_cpu, item)
    assert began.wait(20)
    deadline = time.monotonic() + 20
    while "thread 'plain0' waits in VCPU.run_on_cpu(" not in dumped():  # it is about to
        assert time.monotonic() < deadline
    go_on.set()
    waiter.result(20)
