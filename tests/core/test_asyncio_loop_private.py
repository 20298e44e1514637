"""The private names of asyncio's loop that ours relies on, tested on asyncio's own."""

from __future__ import annotations

import asyncio
import collections
import gc
import select
import selectors
import signal
import socket
import sys
import threading
from asyncio import events
from asyncio.base_events import (  # type: ignore[attr-defined]
    _format_handle,
)
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest

import homebound

from .asyncio_loops import iterate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    one, other = socket.socketpair()
    with one, other:
        yield one, other


# Running.


def test_the_selector_loop_runs_as_the_base_loop_does():
    for name in ("run_forever", "run_until_complete", "_check_running"):
        assert getattr(asyncio.SelectorEventLoop, name) is getattr(asyncio.BaseEventLoop, name)


def test_run_forever_repeats_run_once_until_it_is_stopping():
    seen = []

    class Counting(asyncio.SelectorEventLoop):
        def _run_once(self) -> None:
            loop: Any = self
            seen.append(loop._thread_id)
            loop._stopping = len(seen) == 3
            assert len(seen) <= 3  # without this it would run forever

    loop: Any = Counting()
    assert loop._thread_id is None
    loop.run_forever()
    assert seen == [threading.get_ident()] * 3
    assert (loop._thread_id, loop._stopping) == (None, False)
    loop.stop()
    assert loop._stopping is True
    loop.close()


def test_a_stopping_loop_does_not_sleep():
    """The iteration that sees the flag asks for events without waiting."""
    asked = []

    class Recording(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            asked.append(timeout)
            assert asked == [0]  # without this it would run forever
            return super().select(0)

    loop: Any = asyncio.SelectorEventLoop(Recording())
    loop._stopping = True
    loop.run_forever()
    assert asked
    loop.close()


def test_what_is_ready_is_run_from_the_left(loop: Any):
    order: list[str] = []
    soon = loop.call_soon(order.append, "soon")
    threadsafe = loop.call_soon_threadsafe(order.append, "threadsafe")
    assert type(loop._ready) is collections.deque
    assert list(loop._ready) == [soon, threadsafe]
    loop._ready.append(events.Handle(order.append, ("put last",), loop))
    loop._ready.appendleft(events.Handle(order.append, ("put first",), loop))
    iterate(loop)
    assert order == ["put first", "soon", "threadsafe", "put last"]
    assert not loop._ready


def test_a_closed_loop(loop: Any):
    loop._check_closed()
    loop._closed = True
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop._check_closed()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.call_soon(print)
    loop._closed = False
    loop.close()
    assert loop._closed is True


def test_a_loop_is_closed_although_its_sockets_were_first(loop: Any):
    """The garbage collector may finalise both before the loop; asyncio's own fails then."""
    ours: Any = homebound.new_event_loop()
    selector = ours._selector
    pair = ours._ssock, ours._csock
    pair[0].close()
    ours.close()
    assert ours.is_closed()
    assert [end.fileno() for end in pair] == [-1, -1]
    assert (ours._ssock, ours._csock, ours._selector) == (None, None, None)
    assert selector.get_map() is None

    loop._remove_reader(loop._ssock.fileno())
    loop._ssock.close()
    with pytest.raises(ValueError, match="-1"):
        loop._close_self_pipe()
    loop._ssock = loop._csock.dup()  # so that it can be closed


def test_a_running_loop(loop: Any):
    loop._check_running()
    loop._thread_id = threading.get_ident()
    assert loop.is_running()
    with pytest.raises(RuntimeError, match="already running"):
        loop._check_running()
    loop._thread_id = None
    assert not loop.is_running()


def test_debug_mode_checks_the_thread(loop: Any):
    loop._check_thread()  # no thread runs it, so any thread may call
    loop._thread_id = threading.get_ident()
    loop._check_thread()
    loop._thread_id += 1
    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        loop._check_thread()
    loop._debug = False
    loop.call_soon(print).cancel()
    loop._debug = True
    assert loop.get_debug()
    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        loop.call_soon(print)
    loop._thread_id = None


def test_debug_mode_checks_the_callback(loop: Any):
    loop._check_callback(print, "call_soon")
    coro = asyncio.sleep(0)
    for wrong in (asyncio.sleep, coro, "print"):
        with pytest.raises(TypeError, match="call_later"):
            loop._check_callback(wrong, "call_later")
    coro.close()


def test_debug_mode_names_the_handle_that_runs(caplog: pytest.LogCaptureFixture, loop: Any):
    running: list[Any] = []
    loop.set_debug(True)
    handle = loop.call_soon(lambda: running.append(loop._current_handle))
    iterate(loop)
    assert running == [handle]
    assert loop._current_handle is None
    loop._current_handle = handle
    loop.call_exception_handler({"message": "in a callback"})
    assert "test_debug_mode_names_the_handle_that_runs" in caplog.text  # its creator


def test_a_task_s_step_is_shown_as_the_task(loop: Any):
    task = loop.create_task(asyncio.sleep(0))
    assert _format_handle(events.Handle(task.cancel, (), loop)) == repr(task)
    other = events.Handle(print, (), loop)
    assert _format_handle(other) == repr(other)
    loop.run_until_complete(task)


def test_a_task_factory_makes_the_tasks(loop: Any):
    async def main() -> str:
        return "done"

    def factory(_loop: Any, coro: Any, **options: Any) -> Any:
        made.append(task := asyncio.Task(coro, loop=loop, **options))
        return task

    made: list[Any] = []
    assert loop._task_factory is None
    loop.set_task_factory(print)
    assert loop._task_factory is print
    loop._task_factory = factory
    task = loop.create_task(main())
    assert made == [task]
    assert loop.run_until_complete(task) == "done"


def test_the_default_executor(loop: Any):
    assert loop._default_executor is None
    with homebound.WorkerPool(name="mine") as pool:
        loop._default_executor = pool
        name = loop.run_until_complete(asyncio.to_thread(lambda: threading.current_thread().name))
        assert name.startswith("mine-")
        loop.run_until_complete(loop.shutdown_default_executor())
        with pytest.raises(RuntimeError, match="was shut down"):
            pool.submit(int)


# Asynchronous generators.


async def two() -> AsyncGenerator[int, None]:
    yield 1
    yield 2


async def begin(generator: AsyncGenerator[int, None]) -> int:
    return await anext(generator)  # in the loop's thread: the call tells the hook


def test_a_running_loop_s_methods_are_the_hooks_for_generators(loop: Any):
    hooks: list[Any] = []
    loop.call_soon(lambda: hooks.extend(sys.get_asyncgen_hooks()))
    before = sys.get_asyncgen_hooks()
    iterate(loop)
    assert hooks == [loop._asyncgen_firstiter_hook, loop._asyncgen_finalizer_hook]
    assert sys.get_asyncgen_hooks() == before


def test_the_generators_that_are_closed_at_the_end(loop: Any):
    generator = two()
    loop.run_until_complete(begin(generator))
    assert set(loop._asyncgens) == {generator}
    loop._asyncgens.clear()
    loop._asyncgens.update([generator])
    assert loop._asyncgens_shutdown_called is False
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert loop._asyncgens_shutdown_called is True
    assert not loop._asyncgens
    assert generator.ag_frame is None
    with pytest.warns(ResourceWarning, match="was scheduled after"):
        loop._asyncgen_firstiter_hook(two())


def test_a_dropped_generator_has_no_weak_references_any_more():
    """A finaliser's argument is therefore known by its id alone."""
    seen: list[Any] = []

    class Recording(asyncio.SelectorEventLoop):
        def _asyncgen_finalizer_hook(self, agen: Any) -> None:
            seen.append((watch(), id(agen)))
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]

    recording = Recording()
    generator = two()
    watch, ident = ref(generator), id(generator)
    recording.run_until_complete(begin(generator))
    del generator
    gc.collect()
    assert seen == [(None, ident)]
    recording.run_until_complete(recording.shutdown_asyncgens())
    recording.close()


# Descriptors and signals.


def test_events_queue_the_handlers_of_a_descriptor(
    loop: Any, ends: tuple[socket.socket, socket.socket]
):
    fd = ends[0].fileno()
    reader, writer = loop._add_reader(fd, print), loop._add_writer(fd, print)
    assert loop._selector.get_key(fd).data == (reader, writer)
    ends[1].send(b"x")
    loop._process_events(loop._selector.select(0))
    assert list(loop._ready) == [reader, writer]
    loop._ready.clear()
    assert loop._remove_reader(fd) is True
    assert (reader._cancelled, writer._cancelled) == (True, False)
    assert loop._selector.get_key(fd).data == (None, writer)
    loop._process_events(loop._selector.select(0))
    assert list(loop._ready) == [writer]
    loop._ready.clear()
    assert loop._remove_writer(fd) is True
    assert fd not in loop._selector.get_map()
    assert loop._remove_reader(fd) is loop._remove_writer(fd) is False


def test_the_descriptor_of_a_transport_is_its_own(
    loop: Any, ends: tuple[socket.socket, socket.socket]
):
    loop._ensure_fd_no_transport(ends[0])
    transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=ends[0]))
    with pytest.raises(RuntimeError, match="is used by transport"):
        loop._ensure_fd_no_transport(ends[0])
    transport.abort()
    iterate(loop)


def test_writing_to_itself_wakes_the_loop():
    class Counting(asyncio.SelectorEventLoop):
        written = 0

        def _write_to_self(self) -> None:
            self.written += 1
            super()._write_to_self()  # type: ignore[misc]

    loop: Any = Counting()
    loop.call_soon(print).cancel()
    assert loop.written == 0
    loop.call_soon_threadsafe(print).cancel()
    assert loop.written == 1
    [(key, _)] = loop._selector.select(0)
    assert key.fd == loop._ssock.fileno()
    assert loop._ssock.recv(100) == b"\0"
    loop.close()


def test_signals_come_as_bytes_through_the_self_pipe(loop: Any):
    heard: list[str] = []
    loop.add_signal_handler(signal.SIGUSR1, heard.append, "heard")
    [(number, handle)] = loop._signal_handlers.items()
    assert (number, handle._args) == (signal.SIGUSR1, ("heard",))
    written_to = signal.set_wakeup_fd(-1)
    assert written_to == loop._csock.fileno()
    signal.set_wakeup_fd(written_to)
    loop._csock.send(bytes([signal.SIGUSR1]))  # as the handler written in C does
    iterate(loop)
    iterate(loop)
    assert heard == ["heard"]
    loop.remove_signal_handler(signal.SIGUSR1)
    assert loop._signal_handlers == {}
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.skipif(not hasattr(selectors, "EpollSelector"), reason="no epoll here")
def test_an_epoll_selector(ends: tuple[socket.socket, socket.socket]):
    """The dictionary stays the same one, and contains each descriptor that epoll reports."""
    selector: Any = selectors.EpollSelector()
    keys, epoll = selector._fd_to_key, selector._selector
    assert type(epoll) is select.epoll
    one, other = ends
    selector.register(one, selectors.EVENT_READ, "data")
    assert keys == {one.fileno(): selector.get_key(one)}
    assert epoll.poll(0, 100) == []
    other.send(b"x")
    assert epoll.poll(0, 100) == [(one.fileno(), select.EPOLLIN)] == [(one.fileno(), 1)]
    selector.modify(one, selectors.EVENT_READ | selectors.EVENT_WRITE, "more data")
    assert keys[one.fileno()].data == "more data"
    assert epoll.poll(0, 100) == [(one.fileno(), select.EPOLLIN | select.EPOLLOUT)]
    assert select.EPOLLOUT == 4
    selector.register(other, selectors.EVENT_WRITE)
    assert len(epoll.poll(0, 100)) == 2
    assert len(epoll.poll(0, 1)) == 1
    selector.unregister(one)
    assert keys.keys() == {other.fileno()}
    assert keys is selector._fd_to_key
    selector.close()


def test_a_streams_protocol_leads_to_its_reader():
    async def main() -> None:
        reader = asyncio.StreamReader()
        protocol: Any = asyncio.StreamReaderProtocol(reader)
        assert protocol._stream_reader is reader

    asyncio.run(main())


@pytest.mark.parametrize("protocol", [asyncio.Protocol, asyncio.DatagramProtocol])
def test_makers_of_transports_take_a_protocol_second(protocol: Any):
    """What a transport's class allows: a subclass with the same layout, and a field."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        kind = socket.SOCK_STREAM if protocol is asyncio.Protocol else socket.SOCK_DGRAM
        mine, other = socket.socketpair(type=kind)
        mine.setblocking(False)
        make = getattr(
            loop,
            "_make_socket_transport"
            if protocol is asyncio.Protocol
            else "_make_datagram_transport",
        )
        transport = make(mine, protocol())
        transport.__class__ = type("Sub", (type(transport),), {})
        transport.field = 1
        transport.close()
        other.close()
        await asyncio.sleep(0)

    asyncio.run(main())
