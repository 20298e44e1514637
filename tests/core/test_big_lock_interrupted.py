"""The big lock, interrupted between any two bytecodes: it is held or free, and never lost."""

from __future__ import annotations

import asyncio
import dis
import gc
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import big_lock
from homebound._core.big_lock import BigLock, big_lock_released
from homebound._core.current import here
from homebound._core.loop import Loop
from homebound._core.mailbox import put_up_bell, take_bell_down
from homebound._core.stand_in import StandIn
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from types import FrameType

    InThread = Callable[..., Future[Any]]


class Interrupt(BaseException):
    """An exception that a signal handler might raise."""


def _does_nothing(frame: FrameType) -> bool:
    """Whether the frame is at a mark that 3.14 leaves for tracers, outside its `try`."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "NOT_TAKEN"


class Interrupter:
    """A tracer that raises before the n-th bytecode of some functions in this thread."""

    def __init__(self, *functions: Any) -> None:
        self._codes = {getattr(each, "__wrapped__", each).__code__ for each in functions}
        self._left = -1
        self.came = 0  # how often, counted by `every`
        self.where = ""

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code not in self._codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not _does_nothing(frame):
            self._left -= 1
            if self._left == -1:
                self.where = f"{frame.f_code.co_qualname}, bytecode {frame.f_lasti}"
                raise Interrupt
        return self._trace

    def at(self, bytecode: int, call: Callable[[], object]) -> bool:
        """Call `fn` with the interrupt; return False if it ended without one."""
        self._left = bytecode
        sys.settrace(self._trace)
        try:
            call()
        except Interrupt:
            return True
        finally:
            sys.settrace(None)
        return self._left < 0


LOCK = (
    BigLock.acquire,
    BigLock.release,
    BigLock._wait,
    BigLock._wake_head,
    BigLock._reacquire,
    BigLock._release_if_held,
    BigLock._make_ready,
)
# The lock's own functions, and those that lend it.
LENDERS = (
    Loop._sleep_without_big_lock,
    Loop._give_way,
    StandIn.lend,
    StandIn.home_sleeps,
    StandIn.come_back,
    StandIn.awake,
    StandIn.begins,
    StandIn.ends,
    put_up_bell,
    take_bell_down,
)


def every(interrupter: Interrupter, call: Callable[[], object]) -> Iterator[int]:
    """Call `fn` repeatedly, each time with the interrupt one bytecode later."""
    # 3.12 traces a function's bytecodes from its second call on.
    interrupter.at(sys.maxsize, call)
    interrupter.came = 0
    while interrupter.at(interrupter.came, call):
        interrupter.came += 1
        yield interrupter.came


def be_free_again(in_thread: InThread, where: str) -> None:
    """Check that the lock is ours and can be released, or free; another thread can have it then."""
    if big_lock.held():
        big_lock.release()
    done = in_thread(lambda: big_lock.acquire(timeout=10) and big_lock.release() is None)
    assert done.result(20), (where, big_lock)


def test_an_acquire_that_raises_has_not_taken_it(in_thread: InThread):
    """Except at the bytecodes that return True, where no signal handler runs: there it is held."""
    interrupter = Interrupter(BigLock.acquire)

    def take() -> None:
        big_lock.acquire()
        big_lock.release()

    states: list[bool] = []
    for _ in every(interrupter, take):
        states.append(big_lock.held())
        be_free_again(in_thread, interrupter.where)
    assert len(states) > 20
    assert states == sorted(states)
    assert sum(states) < 5


def test_a_release_that_raises_has_released_it(in_thread: InThread):
    """Except at the bytecodes before the release does anything: there the lock is held."""
    interrupter = Interrupter(BigLock.release)

    def take() -> None:
        with big_lock:
            pass

    states: list[bool] = []
    for _ in every(interrupter, take):
        states.append(big_lock.held())
        be_free_again(in_thread, interrupter.where)
    assert len(states) > 20
    assert states == sorted(states, reverse=True)
    assert sum(states) < 15


@pytest.mark.parametrize("timeout", [-1, 20, 0])
def test_with_other_threads_waiting(timeout: float, in_thread: InThread):
    """One thread holds the lock as we come, and waits again as we have it: each wakes the next."""
    interrupter = Interrupter(*LOCK)
    other: Future[Any] | None = None

    def fight() -> None:
        queued = threading.Event()

        def hold() -> None:
            with big_lock:
                taken.set()
                assert queued.wait(10)
                until(lambda: " 1 waiting" in repr(big_lock) or over.is_set())
            with big_lock:
                pass

        nonlocal other
        taken, over = threading.Event(), threading.Event()
        other = in_thread(hold)
        assert taken.wait(10)
        queued.set()
        try:
            if big_lock.acquire(timeout):
                big_lock.release()
        finally:
            over.set()

    for _ in every(interrupter, fight):
        be_free_again(in_thread, interrupter.where)
        assert other is not None
        other.result(20)
    assert interrupter.came > 40
    assert other is not None
    other.result(20)


def main_goes_on(in_thread: InThread, where: str) -> Callable[..., Any]:
    """The main task: its loop sleeps and wakes, and other threads stand in meanwhile."""

    async def look() -> None:
        assert big_lock.held(), where
        loop = asyncio.get_running_loop()
        context = homebound.current_context()
        came = loop.create_future()

        def stand_in() -> None:
            with big_lock:
                assert homebound.current_context() is context, where
            loop.call_soon_threadsafe(lambda: came.done() or came.set_result(None))

        done = in_thread(stand_in)
        await asyncio.wait_for(came, 20)
        done.result(20)
        await asyncio.sleep(0.0001)
        assert big_lock.held(), where

    return look


@pytest.mark.parametrize("wait", ["in the loop", "in a call"])
def test_the_main_loop_sleeps(wait: str, in_thread: InThread):
    """An exception in the sleep ends the run; the cleanup, and the next run, have the lock."""
    interrupter = Interrupter(*LOCK, *LENDERS)
    held: list[bool] = []

    async def main() -> None:
        try:
            if wait == "in the loop":
                await asyncio.sleep(0.0001)
            else:
                homebound.block_on(asyncio.sleep(0.0001))
        except Interrupt:
            held.append(big_lock.held())
            raise
        finally:
            held.append(big_lock.held())
            await main_goes_on(in_thread, interrupter.where)()

    def run() -> None:
        homebound.run(main())

    for _ in every(interrupter, run):
        assert not big_lock.held(), interrupter.where
        be_free_again(in_thread, interrupter.where)
        assert all(held), interrupter.where
    assert interrupter.came > 100


@pytest.mark.timeout(240)  # two threads that spin, one of them traced: slow on busy cores
def test_the_main_loop_waits_for_it(in_thread: InThread):
    """A stand-in holds the lock as the main loop wakes, as when a handler of SIGTERM exits."""
    interrupter = Interrupter(*LOCK, *LENDERS)
    inside: list[str] = []
    overlaps: list[Any] = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        def device() -> None:
            with big_lock:
                inside.append("device")
                loop.signal.set()  # as an event would: the main thread wakes
                until(lambda: " 1 waiting" in repr(big_lock) or over.is_set())
                inside.remove("device")

        over = threading.Event()
        done = in_thread(device)
        try:
            while not done.done():
                # Let the other thread have the GIL: this one is traced, and spins.
                time.sleep(0)  # noqa: ASYNC251
                await asyncio.sleep(0)
            await asyncio.sleep(0.0001)
        finally:
            overlaps.append((list(inside), big_lock.held()))
            over.set()
            await asyncio.sleep(0.0001)

    def run() -> None:
        homebound.run(main())

    for _ in every(interrupter, run):
        be_free_again(in_thread, interrupter.where)
        assert overlaps in ([], [([], True)]), interrupter.where
        overlaps.clear()
    assert interrupter.came > 100


def test_a_stand_in_that_sleeps(in_thread: InThread):
    """The stand-in has the lock again, or has not; it is not lost, and the main loop goes on."""
    interrupter = Interrupter(*LOCK, *LENDERS, StandIn.sleep, big_lock_released)

    def stand_in(context: Any) -> None:
        def wait() -> None:
            try:
                big_lock.acquire()
                homebound.block_on(asyncio.sleep(0.0001), context)
            finally:
                if big_lock.held():
                    big_lock.release()

        for _ in every(interrupter, wait):
            if big_lock.held():
                big_lock.release()
            assert homebound.current_context() is None, interrupter.where
            homebound.block_on(asyncio.sleep(0), context)

    async def main() -> None:
        context = homebound.current_context()
        done = in_thread(stand_in, context)
        await asyncio.wrap_future(done)
        await main_goes_on(in_thread, interrupter.where)()

    homebound.run(main())
    assert interrupter.came > 100
    be_free_again(in_thread, interrupter.where)
    gc.collect()


def test_a_thread_that_waits_lends_it(io: homebound.IOThread, in_thread: InThread):
    interrupter = Interrupter(*LOCK, big_lock_released)

    def wait() -> None:
        try:
            big_lock.acquire()
            tasks.append(io.spawn(work()))
            homebound.block_on(tasks[-1])
        finally:
            if big_lock.held():
                big_lock.release()

    def finish() -> None:
        with big_lock:
            pass

    async def work() -> None:
        await homebound.to_worker(finish)

    tasks: list[homebound.Task[None]] = []
    for _ in every(interrupter, wait):
        be_free_again(in_thread, interrupter.where)
        while tasks:
            homebound.block_on(asyncio.wait([tasks.pop()]), io.context)
    assert interrupter.came > 100


def test_a_busy_loop_gives_way_once_for_an_abandoned_seat(in_thread: InThread):
    """A wait that was cut short leaves its seat in the queue; the loop notices that."""

    async def main() -> None:
        big_lock._crowd.add(in_thread(lambda: here.seat).result(10))
        await asyncio.sleep(0)
        assert not big_lock._crowd
        await main_goes_on(in_thread, "")()

    homebound.run(main())


@pytest.mark.parametrize("limit", [400])
def test_where_the_stack_ends(limit: int, in_thread: InThread):
    """RecursionError at whatever depth: `with` has released the lock afterwards."""

    def deep(frames: int) -> None:
        if frames:
            deep(frames - 1)
        else:
            with big_lock:
                pass

    raised = 0
    before = sys.getrecursionlimit()
    for frames in range(limit - 120, limit):
        sys.setrecursionlimit(limit)
        try:
            deep(frames)
        except RecursionError:
            raised += 1
        finally:
            sys.setrecursionlimit(before)
        assert not big_lock.held(), frames
        be_free_again(in_thread, str(frames))
    assert 10 < raised < 120


def test_a_handler_takes_it_while_its_thread_waits_for_it(in_thread: InThread):
    """The handler has the lock first, the interrupted thread when the handler returns."""
    order: list[str] = []
    taken, waits = threading.Event(), threading.Event()

    def hold() -> None:
        with big_lock:
            taken.set()
            assert waits.wait(10)

    def handle(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is not BigLock._wait.__code__:
            return None
        if event == "call":
            sys.settrace(None)
            waits.set()
            with big_lock:
                order.append("handler")
        return None

    done = in_thread(hold)
    assert taken.wait(10)
    sys.settrace(handle)
    with big_lock:
        order.append("thread")
        assert " 0 waiting" in repr(big_lock)
    done.result(10)
    assert order == ["handler", "thread"]
    be_free_again(in_thread, "")
