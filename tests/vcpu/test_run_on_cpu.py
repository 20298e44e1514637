"""Work items: whose thread, which lock, which order; every kind of caller."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import VCPU, ContextError, big_lock
from homebound.block import MemoryDisk
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def whereabouts() -> tuple[str, bool]:
    return threading.current_thread().name, big_lock.held()


def test_from_a_plain_thread(vcpu: VCPU):
    assert vcpu.run_on_cpu(whereabouts) == ("vcpu0", True)
    with pytest.raises(ZeroDivisionError):
        vcpu.run_on_cpu(divmod, 1, 0)
    assert vcpu.run_on_cpu(divmod, 7, 2) == (3, 1)


def test_from_a_holder_of_the_big_lock_without_a_main_loop(vcpu: VCPU):
    with big_lock:
        assert vcpu.run_on_cpu(whereabouts) == ("vcpu0", True)
        assert big_lock.held()


def test_from_the_main_loop_which_keeps_turning(vcpu: VCPU):
    async def main() -> None:
        ticked: list[int] = []
        homebound.current_context().call_soon(ticked.append, 1)  # type: ignore[union-attr]
        # The item needs the main loop: it waits for the callback that this thread is to run.
        assert vcpu.run_on_cpu(homebound.block_on, asyncio.sleep(0.001, "slept")) == "slept"
        assert ticked
        assert vcpu.run_on_cpu(whereabouts) == ("vcpu0", True)

    homebound.run(main())


def test_from_an_io_thread_which_keeps_turning(vcpu: VCPU):
    async def in_io() -> Any:
        # Without the big lock an I/O thread waits for the vCPU, and the vCPU for its loop.
        return vcpu.run_on_cpu(lambda: homebound.wait_while(lambda: not done, timeout=20) or done)

    async def with_lock() -> Any:
        with big_lock:
            where = vcpu.run_on_cpu(whereabouts)
            assert big_lock.held()
        return where

    async def main() -> None:
        task = io.spawn(in_io())
        io.context.call_soon(lambda: (done.append(1), homebound.kick()))
        assert await task
        assert await io.spawn(with_lock()) == ("vcpu0", True)

    done: list[int] = []
    with homebound.IOThread("io") as io:
        homebound.run(main())


def test_from_a_stand_in(vcpu: VCPU, in_thread: InThread):
    def stand_in() -> Any:
        with big_lock:
            return vcpu.run_on_cpu(whereabouts)

    async def main() -> None:
        waiting = in_thread(stand_in)
        while not waiting.done():
            await asyncio.sleep(0)  # a loop that is always busy must not keep the vCPU out
        assert waiting.result() == ("vcpu0", True)

    homebound.run(main())


def test_the_main_loop_ends_while_a_stand_in_waits(vcpu: VCPU, in_thread: InThread):
    """What it waits for is another thread's: it goes on, and the answer is waited for."""
    began, go_on = threading.Event(), threading.Event()

    def item() -> str:
        began.set()
        go_on.wait(20)
        return whereabouts()[0]

    def stand_in() -> Any:
        with big_lock:
            return vcpu.exclusive(item), big_lock.held()

    async def main() -> Future[Any]:
        waiting = in_thread(stand_in)
        while not began.is_set():
            await asyncio.sleep(0)
        return waiting

    waiting = homebound.run(main())
    go_on.set()
    assert waiting.result(20) == ("vcpu0", True)


def test_from_a_task_that_a_stand_in_runs(vcpu: VCPU, in_thread: InThread):
    async def task() -> Any:
        assert threading.current_thread().name == "plain0"
        return vcpu.run_on_cpu(whereabouts), homebound.current_task()

    def stand_in() -> Any:
        with big_lock:
            return homebound.block_on(task())

    async def main() -> None:
        waiting = in_thread(stand_in)
        while not waiting.done():
            await asyncio.sleep(0.0001)
        where, current = waiting.result()
        assert where == ("vcpu0", True)
        assert current is not None

    homebound.run(main())


def test_on_a_loop_of_others_it_is_refused_before_anything_happens(vcpu: VCPU):
    called: list[int] = []

    async def main() -> None:
        homebound.AioContext.attach(asyncio.get_running_loop())
        for ask in (vcpu.run_on_cpu, vcpu.exclusive):
            with pytest.raises(ContextError, match="cannot be run from inside itself"):
                ask(called.append, 1)
        with pytest.raises(ContextError, match="cannot be run from inside itself"):
            vcpu.pause()
        vcpu.async_run_on_cpu(called.append, 2)
        await asyncio.to_thread(vcpu.run_on_cpu, int)

    asyncio.run(main())
    assert called == [2]


def test_inline_in_its_own_thread():
    seen: list[Any] = []

    def execute(vcpu: VCPU) -> None:
        seen.append(vcpu.run_on_cpu(whereabouts))
        with big_lock:
            seen.append(vcpu.run_on_cpu(whereabouts))
            seen.append(big_lock.held())
        seen.append(big_lock.held())
        vcpu.stop()

    with VCPU(0, execute) as cpu:
        cpu.join(20)
    assert seen == [("vcpu0", True), ("vcpu0", True), True, False]


def test_items_are_served_in_order(vcpu: VCPU):
    got: list[int] = []
    for number in range(200):
        vcpu.async_run_on_cpu(got.append, number)
    vcpu.run_on_cpu(int)
    assert got == list(range(200))


def test_an_item_that_fails_is_reported_and_the_next_runs(
    vcpu: VCPU, monkeypatch: pytest.MonkeyPatch
):
    errors: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: errors.append(args.exc_value))
    vcpu.async_run_on_cpu(divmod, 1, 0)
    assert vcpu.run_on_cpu(lambda: 1) == 1
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_two_vcpus_that_wait_for_each_others_items_serve_them():
    both = threading.Barrier(2)
    got: list[Any] = []

    def execute(vcpu: VCPU) -> None:
        if not vcpu.halted and len(got) < 2:
            both.wait(20)
            with big_lock:
                got.append(cpus[1 - vcpu.index].run_on_cpu(whereabouts))
        vcpu.halt()

    cpus = [VCPU(index, execute) for index in range(2)]
    with cpus[0], cpus[1]:
        until(lambda: all(cpu.run_on_cpu(lambda cpu=cpu: cpu.halted) for cpu in cpus))
    assert sorted(got) == [("vcpu0", True), ("vcpu1", True)]


def test_device_code_waits_for_a_disk():
    """Guest code in a vCPU, the disk's coroutine inline in its thread, the main loop free."""
    disk = MemoryDisk(4096)
    disk.try_write(512, b"sector 1")
    seen = []

    async def device() -> bytes:
        await asyncio.sleep(0.001)
        return bytes(await disk.read(512, 8))

    def execute(vcpu: VCPU) -> None:
        with big_lock:
            seen.append(homebound.block_on(device()))
        vcpu.stop()

    async def main() -> None:
        cpu = VCPU(0, execute)
        cpu.start()
        cpu.join()

    homebound.run(main())
    disk.close()
    assert seen == [b"sector 1"]
