"""The virtual clock: hours pass at once, in order, and not while anything is at work."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, block_on, current_context, wait_while
from homebound._core.wind_down import close_surely
from homebound._os.clock import clock as seam
from homebound._os.parking import Parker
from homebound._threads import io_thread
from homebound.testing import Threads, VirtualClock, settle, settle_sync, until, virtual_clock
from homebound.testing._time import clock as clock_module

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HOUR = 3600.0
BEFORE = time.monotonic


async def noting(clock: VirtualClock, *seconds: float) -> list[float]:
    times = []
    for each in seconds:
        await asyncio.sleep(each)
        times.append(clock.now())
    return times


def test_a_day_passes_at_once():
    began = time.monotonic()
    with virtual_clock() as clock:
        assert clock.now() == 0.0
        homebound.run(asyncio.sleep(24 * HOUR))
        assert clock.now() == 24 * HOUR
    assert time.monotonic() < began + HOUR
    assert abs(asyncio.SelectorEventLoop.time(None) - time.monotonic()) < HOUR  # type: ignore[arg-type]


def test_the_system_clock_is_back_afterwards():
    loop = homebound.new_event_loop()
    with virtual_clock() as clock:
        homebound.run(asyncio.sleep(1000 * HOUR))
        assert loop.time() >= BEFORE() + 900 * HOUR
        assert clock.now() == 1000 * HOUR
    assert loop.time() <= BEFORE()
    loop.close()


def test_contexts_sleep_side_by_side(virtual_clock: VirtualClock, io: IOThread, io2: IOThread):
    first = io.spawn(noting(virtual_clock, 5, 5, 20))
    second = io2.spawn(noting(virtual_clock, 1, 7, 7))
    assert virtual_clock.now() == 0.0, "this thread is at work"
    assert block_on(first) == [5, 10, 30]
    assert block_on(second) == [1, 8, 15]
    assert virtual_clock.now() == 30


def test_main_and_others(virtual_clock: VirtualClock, io: IOThread):
    async def main() -> list[float]:
        far = io.spawn(noting(virtual_clock, 0.5, 0.25, 1.5))
        assert await noting(virtual_clock, 1, 1) == [1, 2]
        return await far

    assert homebound.run(main()) == [0.5, 0.75, 2.25]


def test_timers_of_one_loop_in_order(virtual_clock: VirtualClock):
    async def main() -> None:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for number in (3, 1, 2):
            loop.call_later(number * HOUR, order.append, number)
        cancelled = loop.call_later(HOUR / 2, order.append, 0)
        cancelled.cancel()
        await asyncio.sleep(2.5 * HOUR)
        assert order == [1, 2]
        assert virtual_clock.now() == 2.5 * HOUR

    homebound.run(main())


TIMEOUTS: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {}


def timeout(
    fn: Callable[[], Coroutine[Any, Any, object]],
) -> Callable[[], Coroutine[Any, Any, object]]:
    TIMEOUTS[fn.__name__] = fn
    return fn


@timeout
async def asyncio_timeout() -> None:
    async with asyncio.timeout(HOUR):
        await asyncio.get_running_loop().create_future()


@timeout
async def wait_for() -> None:
    await asyncio.wait_for(asyncio.sleep(2 * HOUR), HOUR)


@timeout
async def wait_while_here() -> None:
    wait_while(lambda: True, current_context(), timeout=HOUR)


@timeout
async def block_on_here() -> None:
    block_on(asyncio.sleep(2 * HOUR), timeout=HOUR)


@timeout
async def queue_sync_here() -> None:
    try:
        homebound.Queue().get_sync(timeout=HOUR)
    except asyncio.QueueEmpty as error:
        raise TimeoutError from error


@pytest.mark.parametrize("name", TIMEOUTS)
@pytest.mark.parametrize("where", ["main", "io"])
def test_timeouts(name: str, where: str, virtual_clock: VirtualClock, io: IOThread):
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await TIMEOUTS[name]()

    homebound.run(main()) if where == "main" else block_on(main(), io.context)
    assert virtual_clock.now() == HOUR


def test_timeouts_of_a_plain_thread(virtual_clock: VirtualClock, io: IOThread):
    lock, event, condition = homebound.Lock(), homebound.Event(), homebound.Condition()
    lock.acquire_sync()
    condition.acquire_sync()
    with pytest.raises(TimeoutError):
        block_on(asyncio.sleep(2 * HOUR), io.context, timeout=HOUR)
    assert not lock.acquire_sync(timeout=HOUR)
    assert not event.wait_sync(timeout=HOUR)
    assert not condition.wait_for_sync(lambda: False, timeout=HOUR)
    with pytest.raises(TimeoutError):
        homebound.Barrier(2).wait_sync(timeout=HOUR)
    assert virtual_clock.now() == 5 * HOUR


def test_a_waiter_served_in_time_does_not_time_out(virtual_clock: VirtualClock, io: IOThread):
    event = homebound.Event()

    async def set_it() -> None:
        await asyncio.sleep(HOUR)
        event.set()

    io.spawn(set_it())
    assert event.wait_sync(timeout=HOUR + 1)
    assert virtual_clock.now() == HOUR


@pytest.mark.parametrize("how", ["to_worker", "to_thread", "run_in"])
def test_a_job_in_flight_is_busy(how: str, virtual_clock: VirtualClock):
    """The job ends when it has seen that the clock stands, however long that takes."""
    own = concurrent.futures.ThreadPoolExecutor(1)
    calls: dict[str, Callable[..., Any]] = {
        "to_worker": homebound.to_worker,
        "to_thread": asyncio.to_thread,
        "run_in": lambda fn: homebound.run_in(own, fn),
    }
    looked: list[object] = []

    def job() -> float:
        while "executor" not in (text := repr(virtual_clock)) and "flight" not in text:
            time.sleep(0)
        looked.append(virtual_clock.now())
        return virtual_clock.now()

    async def main() -> None:
        async with asyncio.timeout(1):
            assert await calls[how](job) == 0.0
        assert await noting(virtual_clock, 1) == [1.0]

    with own:
        homebound.run(main())
    assert looked == [0.0]


def test_data_between_contexts_is_busy(virtual_clock: VirtualClock, io: IOThread, io2: IOThread):
    async def rally(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(200):
            async with asyncio.timeout(0.001):  # of virtual time: none
                await loop.sock_sendall(sock, await loop.sock_recv(sock, 4))

    here, there = socket.socketpair()
    with here, there:
        for sock in (here, there):
            sock.setblocking(False)
        here.send(b"ball")
        tasks = [io.spawn(rally(here)), io2.spawn(rally(there))]
        for task in tasks:
            block_on(task)
    assert virtual_clock.now() == 0.0


def test_a_thread_at_work_is_busy(virtual_clock: VirtualClock, io: IOThread):
    """A thread registers as a party: the clock waits for it as for the thread that made it."""
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            ticks.append(virtual_clock.now())

    go_on = threading.Event()

    def work() -> list[float]:
        with virtual_clock.party():
            go_on.set()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    block_on(asyncio.sleep(9), io.context, timeout=1)
            return list(ticks)

    with Threads() as threads:
        done = threads.start(work)
        assert go_on.wait(20)
        io.spawn(tick())
        event = homebound.Event()
        done.add_done_callback(lambda _: event.set())
        event.wait_sync()
    assert len(done.result()) in (2, 3)  # the third one and its own timeout come at one time


def test_patience_with_a_party_that_waits_for_something_else(io: IOThread):
    with virtual_clock(patience=0.01) as clock:
        future = asyncio.run_coroutine_threadsafe(noting(clock, 5, 5, 5), io.context.loop)
        assert future.result(20) == [5, 10, 15]


def test_by_hand(io: IOThread):
    with virtual_clock(autojump=False) as clock:
        task = io.spawn(noting(clock, 1, 1, 1.5))
        settle_sync()
        assert clock.now() == 0.0
        clock.advance(0.5)
        assert not task.done()
        clock.advance(0.5)
        assert clock.now() == 1.0
        clock.advance(10)
        assert (clock.now(), block_on(task)) == (11, [1, 2, 3.5])
        with pytest.raises(ValueError, match="does not go back"):
            clock.advance(-1)
    with pytest.raises(RuntimeError, match="not in force"):
        clock.advance(1)


@pytest.mark.parametrize("where", ["main", "io"])
def test_by_hand_in_a_task(where: str, io: IOThread):
    async def main() -> None:
        task = asyncio.create_task(noting(clock, *[1] * 10))
        await settle()
        clock.advance(3.5)
        assert clock.now() == 3.5
        assert not task.done()
        clock.autojump = True
        assert await task == list(range(1, 11))

    with virtual_clock(autojump=False) as clock:
        homebound.run(main()) if where == "main" else block_on(main(), io.context)


def test_in_a_task_of_a_loop_that_runs_already():
    async def main() -> None:
        with virtual_clock() as clock:
            await asyncio.sleep(HOUR)
            assert clock.now() == HOUR
        async with asyncio.timeout(20):
            await asyncio.sleep(0.001)

    homebound.run(main())


def test_sleeps_that_span_its_beginning_and_its_end(io: IOThread):
    """A sleep begun by the system's clock ends by the virtual one, and the reverse."""
    before = BEFORE()
    early = io.spawn(asyncio.sleep(HOUR, "early"))
    settle_sync()
    with virtual_clock() as clock:
        slept = BEFORE() - before  # at most, by the system's clock
        assert block_on(early) == "early"
        assert clock.now() >= HOUR - slept - 1e-6  # it tells whole microseconds
    with virtual_clock(autojump=False):
        late = io.spawn(asyncio.sleep(0.01, "late"))
        settle_sync()
    assert block_on(late, timeout=20) == "late"


def test_a_sleep_that_begins_as_it_ends_is_not_forever():
    """A thread is stopped between asking for the clock and sleeping by it."""
    with virtual_clock():
        sleep, soon = seam.park, seam.time() + 1
    with Threads() as threads:  # the main thread sleeps for a tenth of a second at most
        assert threads.start(sleep, Parker(), soon).result(20) is False


def test_a_stand_in_sleeps_by_it(virtual_clock: VirtualClock):
    def guest() -> float:
        with homebound.big_lock:
            block_on(asyncio.sleep(HOUR))
            return virtual_clock.now()

    async def main() -> None:
        assert await homebound.to_worker(guest) == HOUR

    with Threads() as threads:
        done = asyncio.Event()

        async def beside() -> None:
            loop = asyncio.get_running_loop()
            future = threads.start(guest)
            future.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
            await done.wait()
            assert future.result() == HOUR

        homebound.run(beside())


def test_one_at_a_time(virtual_clock: VirtualClock):
    with pytest.raises(RuntimeError, match="another virtual clock"), VirtualClock():
        pass
    homebound.run(asyncio.sleep(1))
    assert virtual_clock.now() == 1


@pytest.mark.parametrize("option", ["calm", "patience"])
def test_invalid_arguments_are_refused(option: str):
    with pytest.raises(ValueError, match=option):
        virtual_clock(**{option: -1.0})  # type: ignore[arg-type]


def test_calm_waits_for_answers_from_outside(io: IOThread):
    """A thread unknown to the clock answers, in real time, before virtual time goes on."""

    async def ask(threads: Threads) -> float:
        answer = asyncio.get_running_loop().create_future()

        def think() -> None:
            until(lambda: clock._idle is not None and clock._why is None)  # it would jump now
            answer.get_loop().call_soon_threadsafe(answer.set_result, clock.now())

        threads.start(think)
        async with asyncio.timeout(1):
            return await answer  # type: ignore[no-any-return]

    with virtual_clock(calm=HOUR) as clock, Threads() as threads:
        assert block_on(ask(threads), io.context) == 0.0
    with virtual_clock(calm=0.001) as clock:
        assert block_on(noting(clock, 1), io.context) == [1.0]


def test_it_names_what_keeps_it(virtual_clock: VirtualClock, io: IOThread):
    go_on = threading.Event()
    io.context.call_soon(go_on.wait, 20)
    said = "<VirtualClock 0.0 s, kept by <AioContext 'io'> is awake>"
    try:
        until(lambda: repr(virtual_clock) == said)
    finally:
        go_on.set()


def test_other_loops_keep_their_own_time(virtual_clock: VirtualClock, stock: Any):
    async def where() -> bool:
        await asyncio.sleep(0.001)
        return current_context() is None

    assert stock.call(where()).result(20)
    assert virtual_clock.now() == 0.0


def test_a_home_that_another_thread_closes_is_busy(monkeypatch: pytest.MonkeyPatch, io: IOThread):
    """Its selector is closed between two looks of the clock's thread."""
    loop = homebound.block_on(running_loop(), io.context)
    looks = []

    def closed() -> int:
        looks.append(1)
        if len(looks) < 3:
            message = "I/O operation on closed epoll object"
            raise ValueError(message)
        fd: int = type(loop).selector_fd(loop)
        return fd

    monkeypatch.setattr(loop, "selector_fd", closed, raising=False)
    with virtual_clock():
        block_on(asyncio.sleep(HOUR), io.context)
    assert len(looks) > 3


@pytest.mark.parametrize("when", ["starts", "ends"])
def test_time_stands_while_an_io_thread_starts_or_ends(
    monkeypatch: pytest.MonkeyPatch, io: IOThread, when: str
):
    """Another home waits for a timer, and this thread for the I/O thread."""

    def make_slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*arguments: Any) -> Any:
            time.sleep(0.1)
            return function(*arguments)

        return slow

    factory = homebound.new_event_loop
    if when == "starts":
        factory = make_slow(factory)
    else:
        monkeypatch.setattr(io_thread, "close_surely", make_slow(close_surely))
    with virtual_clock() as clock:
        timer = io.spawn(noting(clock, HOUR))
        with IOThread("other", loop_factory=factory):
            started = clock.now()
        assert (started, clock.now()) == (0.0, 0.0)
        assert block_on(timer) == [HOUR]


async def running_loop() -> Any:
    return asyncio.get_running_loop()


def test_a_clock_after_one_whose_thread_has_died(monkeypatch: pytest.MonkeyPatch, io: IOThread):
    said: list[type] = []
    monkeypatch.setattr(threading, "excepthook", lambda about: said.append(about.exc_type))

    def die(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as context, virtual_clock():
        context.setattr(clock_module, "cut", die)
        until(lambda: said == [MemoryError])
    with virtual_clock():
        block_on(asyncio.sleep(HOUR), io.context)
