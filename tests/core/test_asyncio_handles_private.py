"""The meaning of the private fields of asyncio's handles, which ours set themselves."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from typing import Any

import pytest

import homebound
from homebound._aio.handles import ErrandHandle, ErrandTimer, FastHandle, ThreadSafeHandle

from .asyncio_loops import iterate

variable = contextvars.ContextVar("variable", default="outside")


def test_ours_sets_every_field_of_a_handle():
    fields = set(events.Handle.__slots__) - {"__weakref__"}
    ours: Any = FastHandle(print, (), None, None)
    asyncios: Any = events.Handle(print, (), asyncio.new_event_loop())
    asyncios._loop.close()
    assert {name for name in fields if hasattr(ours, name)} == fields
    values = {name: getattr(asyncios, name) for name in fields - {"_context", "_loop"}}
    assert {name: getattr(ours, name) for name in values} == values
    assert set(events.TimerHandle.__slots__) == {"_scheduled", "_when"}


def test_a_handle_calls_in_its_context(loop: Any):
    seen: list[Any] = []
    context = contextvars.copy_context()
    context.run(variable.set, "inside")
    handle: Any = FastHandle(
        lambda *args: seen.append((args, variable.get())), (1, 2), loop, context
    )
    handle._run()
    assert seen == [((1, 2), "inside")]
    handle._context = contextvars.copy_context()
    handle._run()
    assert seen[1:] == [((1, 2), "outside")]


def test_a_handle_reports_to_its_loop(loop: Any):
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, report: reports.append(report))
    handle: Any = FastHandle(lambda: 1 / 0, (), loop, None)
    handle._run()
    [report] = reports
    assert report["handle"] is handle
    assert isinstance(report["exception"], ZeroDivisionError)


def test_the_iteration_passes_over_what_is_cancelled(loop: Any):
    ran: list[str] = []
    put = FastHandle(ran.append, ("run",), loop, None)
    cancelled = FastHandle(ran.append, ("passed over",), loop, None)
    cancelled._cancelled = True
    assert cancelled.cancelled()
    loop._ready.extend([cancelled, put])
    iterate(loop)
    assert ran == ["run"]


def test_a_cancelled_handle_forgets_its_callback(loop: Any):
    """A handle that another thread may cancel therefore cannot be asyncio's."""
    handle: Any = FastHandle(print, ("text",), loop, None)
    handle.cancel()
    assert (handle._cancelled, handle._callback, handle._args) == (True, None, None)
    assert "cancelled" in repr(handle)


class Errand:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def __call__(self) -> None:
        """Do nothing."""


def test_an_errand_s_handle_keeps_its_callback_when_it_is_cancelled(loop: Any):
    errand = Errand()
    handle: Any = ErrandHandle(errand, (), loop, None)
    handle.cancel()
    assert (handle.cancelled(), errand.cancelled, handle._callback) == (True, True, errand)
    handle._run()


def test_an_errand_s_timer_is_counted_when_it_is_cancelled(loop: Any):
    errand = Errand()
    timer: Any = ErrandTimer(loop.time() + 3600, errand, (), loop, contextvars.Context())
    loop._scheduled.append(timer)
    timer._scheduled = True
    timer.cancel()
    timer.cancel()
    assert (timer.cancelled(), errand.cancelled, timer._callback) == (True, True, errand)
    assert loop._timer_cancelled_count == 1


@pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop, homebound.new_event_loop])
def test_debug_mode_shows_where_a_handle_was_made(loop_factory: Any):
    """The traceback ends with the loop's caller; our handle drops its own frames."""
    loop = loop_factory()
    loop.set_debug(True)
    task = loop.create_task(asyncio.sleep(0))
    handles = [
        loop.call_soon(print),
        loop.call_soon_threadsafe(print),
        loop.call_later(3600, print),
        loop.call_at(loop.time() + 3600, print),
    ]
    for made in (*handles, task):
        assert made._source_traceback[-1].name == "test_debug_mode_shows_where_a_handle_was_made"
    for handle in handles:
        handle.cancel()
    loop.run_until_complete(task)
    loop.set_debug(False)
    handle = loop.call_soon(print)
    assert handle._source_traceback is None
    handle.cancel()
    loop.close()


def test_a_thread_safe_handle_has_no_more_to_set():
    """Our handle inherits from it, and has a lock and methods of its own."""
    thread_safe: Any = ThreadSafeHandle
    if thread_safe is None:
        pytest.skip("asyncio has it from 3.14 on")
    assert thread_safe.__bases__ == (events.Handle,)
    assert tuple(thread_safe.__slots__) == ("_lock",)
    own = {name for name, value in vars(thread_safe).items() if callable(value)}
    assert own == {"__init__", "cancel", "cancelled", "_run"}
