"""Puts homebound's loop where CPython's asyncio tests make one of asyncio's.

The tests name the loop they want in four ways, each of which is replaced:

* the event loop policy (`asyncio.new_event_loop`, `asyncio.Runner`, IsolatedAsyncioTestCase);
* `asyncio.SelectorEventLoop` and `asyncio.EventLoop`, called or inherited from;
* `BaseEventLoop` and `BaseSelectorEventLoop`, into which tests plant a mock of a selector;
* `test_utils.TestLoop`, a loop whose clock and selector are the test's.

`install` must run before a test module is imported, since some inherit from what it replaces.
"""

# mypy: disable-error-code="attr-defined, misc, import-not-found"
# The names replaced here are asyncio's private ones, which its stubs leave out.

from __future__ import annotations

import asyncio
import importlib
import selectors
import socket
import sys
from asyncio import base_events, events, selector_events, unix_events
from typing import Any
from unittest import mock

import homebound
from homebound._aio.tasks import running_loop, set_running_loop
from homebound._core.loop import Loop
from homebound._core.loop_context import LoopContext

loops_made = 0  # tells whether a test has run on a loop of ours


class _AnyHomeLoop(type):
    """A base of which the loops of homebound.new_event_loop count as instances, too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Loop)


class HomeLoop(Loop, metaclass=_AnyHomeLoop):
    """Called, it is homebound.new_event_loop; inherited from, a loop of ours with its context."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is HomeLoop:
            return homebound.new_event_loop(*args, **kwargs)
        return super().__new__(cls)


class MockableLoop(HomeLoop):
    """A loop that asks `_selector` at each iteration, so that a test may put a mock there.

    A mock has no keys, and tests count what is asked of it: our own descriptors stay out of it.
    """

    _sendfile_native = base_events.BaseEventLoop._sendfile_native  # as BaseEventLoop's: none
    _sock_sendfile_native = base_events.BaseEventLoop._sock_sendfile_native

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selectors.SelectSelector() if selector is None else selector)
        self._shareable = True  # the main home sleeps in the selector, whatever that is then

    def _select(self, timeout: float | None, most: int) -> list[Any]:
        pairs = super()._select(timeout, most)
        if not pairs:
            self._process_events(pairs)  # tests count the calls, of which ours omits the idle ones
        return pairs

    def _concerns_mock(self, fd: Any) -> bool:
        own = {getattr(getattr(self, "signal", None), "fd", None)}
        if isinstance(self._ssock, socket.socket):
            own.add(self._ssock.fileno())
        mocked = isinstance(self._selector, (mock.NonCallableMock, type(None)))
        return fd not in own or not mocked

    def _sleep_long(self, look: Any, timeout: float | None, *args: Any) -> Any:
        if isinstance(self._csock, socket.socket):
            return super()._sleep_long(look, timeout, *args)
        return look(timeout, *args)  # tests mock the self-pipe, to which signals would be written

    def _add_reader(self, fd: Any, callback: Any, *args: Any, **context: Any) -> Any:
        if self._concerns_mock(fd):
            return super()._add_reader(fd, callback, *args, **context)
        return None

    def _remove_reader(self, fd: Any) -> Any:
        return self._concerns_mock(fd) and super()._remove_reader(fd)


def _count_loops() -> None:
    init = LoopContext.__init__

    def counted(self: LoopContext, loop: Loop, name: str | None = None) -> None:
        global loops_made  # noqa: PLW0603  (a count for the whole process)
        loops_made += 1
        init(self, loop, name)

    LoopContext.__init__ = counted  # type: ignore[method-assign]


def install() -> None:
    """Replace the four: from then on, tests that make a loop get homebound's."""
    _count_loops()
    importlib.import_module("asyncio.proactor_events")  # before its base is replaced
    policy: Any = unix_events._UnixDefaultEventLoopPolicy
    policy._loop_factory = staticmethod(homebound.new_event_loop)
    names: dict[Any, type[Loop]] = {
        "SelectorEventLoop": HomeLoop,
        "EventLoop": HomeLoop,
        "BaseEventLoop": MockableLoop,
        "BaseSelectorEventLoop": MockableLoop,
    }
    for module in (asyncio, base_events, selector_events, unix_events):
        for name, loop_class in names.items():
            if hasattr(module, name):
                setattr(module, name, loop_class)
    _replace_logger()
    _rebase_test_loop()
    if sys.version_info >= (3, 14):
        _run_for_tasks()


def _run_for_tasks() -> None:
    """Replace the running loop for C code and our tasks where a test replaces Python's functions.

    Both must know the loop that then runs: since 3.14 no task can be entered on another.
    """
    run_forever = Loop.run_forever

    def run_known_to_both(self: Loop) -> None:
        before = running_loop()
        if events._get_running_loop is running_loop or before is not None:
            run_forever(self)
            return
        set_running_loop(self)
        try:
            run_forever(self)
        finally:
            set_running_loop(None)

    Loop.run_forever = run_known_to_both  # type: ignore[method-assign]


class _Logger:
    """A logger that follows the one in asyncio.base_events, which tests replace."""

    def __getattr__(self, name: str) -> Any:
        return getattr(base_events.logger, name)


def _rebase_test_loop() -> None:
    """Make the tests' own loop inherit from ours; its parts are used while it is made."""
    from test.test_asyncio import utils  # noqa: PLC0415  (after the names are replaced)

    class TestLoop(utils.TestLoop):
        def __init__(self, gen: Any = None) -> None:
            self.readers: dict[Any, Any] = {}
            self.writers: dict[Any, Any] = {}
            self.reset_counters()
            super().__init__(gen)

    assert issubclass(TestLoop, Loop), "imported too early"
    utils.TestLoop = TestLoop


def _replace_logger() -> None:
    for name, module in tuple(sys.modules.items()):
        if name.startswith("homebound.") and getattr(module, "logger", None) is asyncio.log.logger:
            module.logger = _Logger()
