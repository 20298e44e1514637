"""run, new_event_loop, asyncio.Runner: a real asyncio loop, with a home."""

from __future__ import annotations

import asyncio
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, current_context, main_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Run = Callable[..., Any]


async def nothing() -> None:
    pass


def test_the_result_or_the_exception(run: Run):
    async def give(what: Any) -> Any:
        if isinstance(what, BaseException):
            raise what
        return what

    assert run(give(42)) == 42
    with pytest.raises(ValueError, match="no"):
        run(give(ValueError("no")))
    with pytest.raises(SystemExit):
        run(give(SystemExit(3)))


def test_coroutines_only(run: Run):
    with pytest.raises((ValueError, TypeError), match="a coroutine"):
        run(42)
    assert main_context() is None


def test_not_inside_a_running_loop():
    async def main() -> None:
        coro = nothing()
        with pytest.raises(RuntimeError):
            homebound.run(coro)
        with pytest.raises(RuntimeError):
            coro.send(None)  # closed: no warning that it was never awaited

    homebound.run(main())
    assert main_context() is None


def test_again_and_again():
    contexts = []

    async def main() -> None:
        contexts.append(current_context())

    for _ in range(3):
        homebound.run(main())
    assert len(set(map(id, contexts))) == 3


def test_tasks_that_are_left_are_cancelled_at_the_end(run: Run):
    trace: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            trace.append("cleaned up")

    async def main() -> None:
        tasks.append(asyncio.create_task(left()))
        await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    run(main())
    assert trace == ["cleaned up"]
    assert tasks[0].cancelled()


def test_asynchronous_generators_are_shut_down(run: Run):
    trace: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            trace.append("closed")

    async def main() -> None:
        generator = numbers()
        keep.append(generator)
        assert await anext(generator) == 1

    keep: list[Any] = []
    run(main())
    assert trace == ["closed"]


def test_debug_mode(run: Run):
    async def main() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert run(main(), debug=True) is True
    assert run(main(), debug=False) is False


def test_debug_mode_reports_slow_callbacks(run: Run, caplog: pytest.LogCaptureFixture):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.001
        loop.call_soon(time.sleep, 0.002)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main(), debug=True)
    assert any("took" in record.getMessage() for record in caplog.records)


def test_debug_mode_catches_calls_from_the_wrong_thread(run: Run, in_thread: InThread):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await asyncio.wrap_future(in_thread(loop.call_soon, print))
        loop.call_soon(lambda: None)

    run(main(), debug=True)


def test_the_loop_is_a_selector_event_loop():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, asyncio.SelectorEventLoop)
        assert AioContext.attach(loop) is current_context()

    homebound.run(main())
    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        assert AioContext.attach(runner.get_loop()).loop is runner.get_loop()


@pytest.mark.parametrize("name", ["SelectSelector", "PollSelector", "EpollSelector"])
def test_it_takes_a_selector(name: str, in_thread: InThread):
    if not hasattr(selectors, name):
        pytest.skip(f"no {name} here")
    loop = homebound.new_event_loop(getattr(selectors, name)())

    async def main() -> list[Any]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(b"x")
            got = [await loop.sock_recv(ours, 1)]
        await asyncio.sleep(0.001)
        future = loop.create_future()
        in_thread(loop.call_soon_threadsafe, future.set_result, "woken")
        return [*got, await future]

    assert loop.run_until_complete(main()) == [b"x", "woken"]
    loop.close()


def test_its_class_makes_loops_as_asyncios_does():
    """As libraries do that make another loop like the one they find, or a subclass of it."""
    found = homebound.new_event_loop()
    found.close()
    kind = type(found)

    class Mine(kind):  # type: ignore[misc, valid-type]
        pass

    async def where() -> tuple[object, object]:
        return current_context(), asyncio.get_running_loop()

    selector = selectors.SelectSelector()
    for make in (kind, lambda: kind(selector), lambda: kind(selector=None), Mine):
        with asyncio.Runner(loop_factory=make) as runner:
            loop = runner.get_loop()
            assert runner.run(where()) == (AioContext.attach(loop), loop)


def test_a_runner_keeps_its_loop():
    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        loops = {runner.run(get_loop()) for _ in range(3)}
    assert len(loops) == 1


async def get_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_run_until_complete_and_run_forever():
    loop = homebound.new_event_loop()
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not loop.is_running()
    loop.close()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_forever()
    for act in (loop.call_soon, loop.call_soon_threadsafe):
        with pytest.raises(RuntimeError):
            act(print)
    coro = nothing()
    with pytest.raises(RuntimeError):
        loop.create_task(coro)
    coro.close()


def test_a_running_loop_is_not_to_be_closed():
    async def main() -> None:
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            asyncio.get_running_loop().close()

    homebound.run(main())


def test_a_second_loop_in_the_same_thread_is_refused():
    async def main() -> None:
        other = homebound.new_event_loop()
        coro = nothing()
        with pytest.raises(RuntimeError):
            other.run_until_complete(coro)
        coro.close()
        other.close()
        assert current_context() is main_context() is not None

    homebound.run(main())


def test_a_loop_made_but_never_run_leaves_nothing():
    def descriptors() -> set[Path]:
        return set(Path("/dev/fd").iterdir())

    before = descriptors()
    loop = homebound.new_event_loop()
    assert descriptors() > before
    loop.close()
    assert descriptors() <= before  # a finaliser may have closed others
    assert current_context() is main_context() is None


def test_call_later_order_and_cancel(run: Run):
    async def main() -> None:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        now = loop.time()  # one for all: this thread may have to wait for a core between two calls
        handles = [loop.call_at(now + 0.001 * number, order.append, number) for number in (3, 1, 2)]
        handles[2].cancel()
        loop.call_at(now, order.append, 0)
        await asyncio.sleep(0.005)
        assert order == [0, 1, 3]
        for _ in range(200):  # more cancelled timers than the loop likes to keep
            loop.call_later(3600, print).cancel()
        await asyncio.sleep(0.001)

    run(main())


def test_signals(run: Run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        got = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, got.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await got.wait()
        assert loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_subprocesses(run: Run):
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=-1, stdout=-1
        )
        out, _ = await process.communicate(b"hello\n")
        assert out == b"hello\n"
        assert process.returncode == 0

    run(main())


def test_streams(run: Run, tmp_path: Path):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.write(b"x" * 300_000)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "socket")
        async with server:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
            assert len(await reader.read(-1)) == 300_000
            writer.close()
            await writer.wait_closed()

    run(main())


def test_executor_and_names(run: Run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        names = await asyncio.gather(
            *(loop.run_in_executor(None, lambda: threading.current_thread().name) for _ in range(3))
        )
        assert "MainThread" not in names
        assert await loop.getaddrinfo("127.0.0.1", 80)

    run(main())


def test_the_exception_handler_gets_the_context(run: Run):
    async def main() -> None:
        reports: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, report: reports.append(report))
        loop.call_soon(int, "x")
        await asyncio.sleep(0)
        assert isinstance(reports[0]["exception"], ValueError)

    run(main())


def test_many_descriptors_ready_at_once(run: Run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(300)]
        for ours, theirs in pairs:
            ours.setblocking(False)
            theirs.send(b"x")
        got = await asyncio.gather(*(loop.sock_recv(ours, 1) for ours, _ in pairs))
        assert got == [b"x"] * 300
        for pair in pairs:
            for each in pair:
                each.close()

    run(main())


@pytest.mark.parametrize("how", ["the main task ends", "loop.stop"])
def test_it_ends_though_a_stand_in_has_taken_the_last_step(how: str, in_thread: InThread):
    """The thread that runs the loop sleeps meanwhile, and must be woken to see the end."""
    outcome: list[Future[Any]] = []

    def work(go_on: asyncio.Future[None]) -> str:
        async def wait() -> None:
            if how == "loop.stop":
                go_on.get_loop().stop()
            else:
                go_on.set_result(None)
            await homebound.suspend()

        with homebound.big_lock:
            try:
                homebound.block_on(wait())
            except asyncio.CancelledError:
                return "cancelled at the end"
        return "not cancelled"

    async def main() -> str:
        go_on = asyncio.get_running_loop().create_future()
        outcome.append(in_thread(work, go_on))
        await go_on
        return "ended"

    if how == "loop.stop":
        with pytest.raises(RuntimeError, match="Event loop stopped"):
            homebound.run(main())
    else:
        assert homebound.run(main()) == "ended"
    assert outcome[0].result(10) == "cancelled at the end"


def test_a_stand_in_may_outlast_a_run_and_end_before_the_next(in_thread: InThread):
    """The stand-in sleeps in a nested run of the loop, which is no running loop then."""
    waiting: list[homebound.Task[Any] | None] = []

    def work(go_on: asyncio.Future[None]) -> str:
        async def wait() -> None:
            waiting.append(homebound.current_task())
            go_on.set_result(None)
            await homebound.suspend()

        with homebound.big_lock:
            try:
                homebound.block_on(wait())
            except asyncio.CancelledError:
                return "cancelled"
        return "not cancelled"

    async def main() -> Future[str]:
        go_on = asyncio.get_running_loop().create_future()
        outcome = in_thread(work, go_on)
        await go_on
        return outcome

    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        outcome = runner.run(main())
        assert waiting[0] is not None
        waiting[0].cancel()
        assert outcome.result(10) == "cancelled"
        assert not runner.get_loop().is_running()
        runner.run(nothing())


@pytest.mark.parametrize("run", [homebound.run, asyncio.run], ids=["homebound", "asyncio"])
def test_cleanup_waits_for_tasks_that_it_makes(run: Any, monkeypatch: pytest.MonkeyPatch):
    """However often the end looks at the tasks meanwhile."""
    monkeypatch.setattr("homebound._core.wind_down._RECHECK", 0.001)
    done: list[str] = []

    async def part(name: str) -> None:
        await asyncio.sleep(0.05)
        done.append(name)

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.gather(part("gathered"), asyncio.wait_for(part("limited"), 60))
            done.append("cleaned up")

    async def main() -> None:
        keep.append(asyncio.create_task(work()))
        await asyncio.sleep(0)

    keep: list[Any] = []
    run(main())
    assert sorted(done) == ["cleaned up", "gathered", "limited"]
