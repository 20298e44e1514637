"""`wake()` in a signal handler, between any two bytecodes that wake, run or put aside tasks.

Each wake that did not raise runs its task, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, AlreadyScheduled, ContextError, NotSuspended
from homebound._aio.loop import InheritedLoop
from homebound._core.big_lock import BigLock
from homebound._core.cell import Enterable
from homebound._core.chain import Chain, pour
from homebound._core.guest_context import GuestContext
from homebound._core.loop import Loop
from homebound._core.loop_context import LoopContext
from homebound._core.mailbox import put_up_bell, take_bell_down
from homebound._core.stand_in import StandIn
from homebound._core.task import Task
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from types import FrameType

LINKS = 3  # tasks in the chain that is interrupted


class Interrupter:
    """A tracer that calls a handler before the n-th bytecode of some functions, like a signal."""

    def __init__(self, *functions: Any, where_it_may_raise: bool = False) -> None:
        self._codes = {each.__code__ for each in functions}
        self._where_it_may_raise = where_it_may_raise  # after a call, and at a jump back
        self._before = ""
        self.where = ""

    def at(self, bytecode: int, handle: Callable[[], object]) -> None:
        self._left = bytecode
        self._handle = handle
        sys.settrace(self._trace)
        # The frames that run already have no trace function of their own yet.
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code in self._codes:
                frame.f_trace, frame.f_trace_opcodes = self._trace, True
            frame = frame.f_back

    def came(self) -> bool:
        """Whether the handler was called; it is not called again."""
        sys.settrace(None)
        return self._left < 0

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code not in self._codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            code = frame.f_code
            opname = dis.opname[code.co_code[frame.f_lasti]]
            before, self._before = self._before, opname
            if (
                not self._where_it_may_raise
                or before.startswith("CALL")
                or opname.startswith("JUMP_BACKWARD")
            ):
                self._left -= 1
                if self._left == -1:
                    self.where = f"{code.co_qualname}, bytecode {frame.f_lasti}, {opname}"
                    sys.settrace(None)
                    self._handle()
        return self._trace


CHAINS = (
    Chain._run_chain,
    Chain._put_aside,
    AioContext._enter_here,
    LoopContext.begin_nested,
    LoopContext.end_nested,
    LoopContext._run_now,
    Loop.begin_nested,
    Loop.end_nested,
    GuestContext._run_entries,
    GuestContext._run_now,
    Enterable.wake,
    Enterable._claim,
    Enterable._claim_at_home,
    Task._run,
    pour,
)


class Links:
    """A chain of tasks, each of which wakes the next; and two that a handler wakes first."""

    def __init__(self, turn: Callable[[], object]) -> None:
        self._turn = turn
        self.promised = dict.fromkeys([*range(LINKS), "first", "second"], 0)
        self.ran = self.promised.copy()
        self.tasks: dict[Any, Task[None]] = {}

    def begin(self) -> None:
        for name in self.ran:
            self.tasks[name] = asyncio.create_task(self._link(name))  # type: ignore[assignment]

    async def _link(self, name: Any) -> None:
        while True:
            await homebound.suspend()
            self.ran[name] += 1
            if name == "first":
                self._turn()
                self.wake("second")
            elif name != "second" and name + 1 < LINKS:
                self.wake(name + 1)
                if name == 1:
                    self._turn()

    def wake(self, name: Any) -> None:
        try:
            self.tasks[name].wake()
        except ContextError:
            return
        self.promised[name] += 1

    async def end(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.wait(self.tasks.values())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def turn_nothing() -> None:
    pass


def turn_the_loop() -> None:
    """Put aside the running task, and run the rest on top of it."""
    homebound.block_on(asyncio.sleep(0))


@pytest.mark.parametrize("turn", [turn_nothing, turn_the_loop])
@pytest.mark.parametrize("how", ["from a task", "from a callback"])
def test_each_wake_that_did_not_raise_runs_its_task(how: str, turn: Callable[[], object]):
    interrupter = Interrupter(*CHAINS)

    async def look(bytecode: int) -> bool:
        links = Links(turn)
        links.begin()
        await settle()
        interrupter.at(bytecode, lambda: links.wake("first"))
        try:
            if how == "from a task":
                links.wake(0)
            else:
                asyncio.get_running_loop().call_soon(links.wake, 0)
            await settle()
        finally:
            came = interrupter.came()
        await settle()
        assert links.ran == links.promised, interrupter.where
        assert all(links.ran[link] == 1 for link in range(LINKS)), interrupter.where
        await links.end()
        return came

    async def main() -> int:
        await look(sys.maxsize)  # 3.12 traces a function's bytecodes from its second call on.
        bytecode = 0
        while await look(bytecode):
            bytecode += 1
        return bytecode

    assert homebound.run(main()) > 300


def test_on_a_foreign_loop(factory: Callable[[], asyncio.AbstractEventLoop]):
    interrupter = Interrupter(*CHAINS)

    async def look(bytecode: int, context: AioContext) -> bool:
        links = Links(turn_nothing)
        for name in links.ran:
            links.tasks[name] = context.spawn(links._link(name))
        await settle()
        interrupter.at(bytecode, lambda: links.wake("first"))
        try:
            context.call_soon(links.wake, 0)
            await settle()
        finally:
            came = interrupter.came()
        await settle()
        assert links.ran == links.promised, interrupter.where
        for task in links.tasks.values():
            task.cancel()
        await settle()
        return came

    async def main() -> int:
        context = AioContext.attach(asyncio.get_running_loop())
        bytecode = 0
        await look(sys.maxsize, context)  # as above
        while await look(bytecode, context):
            bytecode += 1
        return bytecode

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) > 200


SLEEP = (
    Loop.iterate,
    Loop._sleep,
    Loop._sleep_without_big_lock,
    Loop.next_timer,
    Loop.timeout_until,
    InheritedLoop._look_until,
    StandIn.home_sleeps,
    StandIn.lend,
    StandIn.awake,
    put_up_bell,
    take_bell_down,
    BigLock.release,
    BigLock._reacquire,
)


@pytest.mark.parametrize("turn", [turn_nothing, turn_the_loop])
def test_as_the_loop_goes_to_sleep(
    turn: Callable[[], object], in_thread: Callable[..., Future[Any]]
):
    """The timers and posts of a task that is woken then still end the sleep.

    The handler may run the loop; what runs afterwards has the big lock as usual.
    """
    interrupter = Interrupter(*SLEEP)

    async def look(bytecode: int) -> bool:
        loop: Any = asyncio.get_running_loop()
        done = loop.create_future()
        handled: list[bool] = []
        held: list[bool] = []

        async def work() -> None:
            await homebound.suspend()
            held.append(homebound.big_lock.held())
            await asyncio.sleep(0.0001)
            held.append(homebound.big_lock.held())
            loop.call_soon(done.set_result, None)

        def handle() -> None:
            handled.append(True)
            turn()
            # Unless it was cancelled before.
            with contextlib.suppress(AlreadyScheduled, NotSuspended):
                task.wake()

        def end_it() -> None:
            """Wait until the loop sleeps without having handled anything, and end its run."""
            until(lambda: handled or loop.home._stand_in.sleeps_until is not None)
            if not handled:
                loop.call_soon_threadsafe(lambda: handled or (task.cancel() and done.cancel()))

        task = loop.create_task(work())
        await settle()
        ended = in_thread(end_it)
        interrupter.at(bytecode, handle)
        await asyncio.wait([done])
        came = interrupter.came()
        assert all(held), interrupter.where
        ended.result(10)
        task.cancel()
        await asyncio.wait([task])
        return came

    async def main() -> int:
        await look(sys.maxsize)  # 3.12 traces a function's bytecodes from its second call on.
        bytecode = 0
        while await look(bytecode):
            bytecode += 1
        return bytecode

    assert homebound.run(main()) > 100


@pytest.mark.parametrize("debug", [False, True])
def test_one_that_empties_the_mailbox(debug: bool):  # noqa: FBT001
    """The handler runs a task that runs the loop, which was about to take what it had counted."""
    interrupter = Interrupter(Loop._run_once, Loop.iterate, Loop._run_with_care)

    async def look(bytecode: int) -> bool:
        loop = asyncio.get_running_loop()
        home = AioContext.attach(loop)
        ran: list[bool] = []

        async def work() -> None:
            await homebound.suspend()
            home.poll(blocking=False)
            ran.append(True)

        def handle() -> None:
            promised.append(True)
            task.wake()

        promised: list[bool] = []
        task: Any = loop.create_task(work())
        await settle()
        interrupter.at(bytecode, handle)
        loop.call_soon(int)
        await asyncio.sleep(0.001)
        came = interrupter.came()
        await settle()
        assert ran == promised, interrupter.where
        task.cancel()
        await asyncio.wait([task])
        return came

    async def main() -> int:
        await look(sys.maxsize)  # 3.12 traces a function's bytecodes from its second call on.
        bytecode = 0
        while await look(bytecode):
            bytecode += 1
            assert not reported, interrupter.where
        return bytecode

    reported: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=homebound.new_event_loop, debug=debug) as runner:
        runner.get_loop().set_exception_handler(lambda _, about: reported.append(about))
        runner.get_loop().slow_callback_duration = 60
        assert runner.run(main()) > 100


def test_one_that_raises_in_a_chain():
    """The run of the loop ends with the exception. Tasks woken before run when the loop does."""
    interrupter = Interrupter(Chain._run_chain, pour, where_it_may_raise=True)

    def look(loop: asyncio.AbstractEventLoop, bytecode: int) -> bool:
        links = Links(turn_nothing)

        def handle() -> None:
            links.wake("first")
            raise KeyboardInterrupt

        async def begin() -> None:
            links.begin()
            await settle()

        async def wake() -> None:
            links.wake(0)
            links.wake(2)
            await settle()

        loop.run_until_complete(begin())
        interrupter.at(bytecode, handle)
        try:
            loop.run_until_complete(wake())
        except KeyboardInterrupt:
            pass
        finally:
            came = interrupter.came()
        loop.run_until_complete(settle())
        loop.run_until_complete(settle())
        assert links.ran == links.promised, interrupter.where
        loop.run_until_complete(links.end())
        return came

    loop = homebound.new_event_loop()
    bytecode = 0
    while look(loop, bytecode):
        bytecode += 1
    assert bytecode > 10
    loop.run_until_complete(settle())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(settle())
    loop.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
def test_a_storm_of_signals():
    """The same with real signals; how many arrive depends on the machine."""

    async def main() -> None:
        links = Links(turn_nothing)
        links.begin()
        await settle()
        signal.signal(signal.SIGALRM, lambda *_: links.wake("first"))
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        for _ in range(2000):
            links.wake(0)
            await asyncio.sleep(0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        await settle()
        assert links.ran == links.promised
        assert links.ran["first"] > 10
        await links.end()

    before = signal.getsignal(signal.SIGALRM)
    assert threading.current_thread() is threading.main_thread()
    try:
        homebound.run(main())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
