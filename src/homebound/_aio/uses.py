"""Debug mode: a watch over the loop, and transports and streams that look where they are used.

A transport is not thread-safe, and asyncio checks none of its methods: a use in another home than
its loop's corrupts its buffer, or has no effect until the loop wakes by chance. In debug mode the
methods that touch the buffer or the selector ask the loop first. `close` and `abort` do not, as
finalisers call them.
"""

from __future__ import annotations

import asyncio
import functools
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

# The loop's methods that make transports; their second argument is the protocol.
_MAKERS = (
    "_make_socket_transport",
    "_make_ssl_transport",
    "_make_datagram_transport",
    "_make_read_pipe_transport",
    "_make_write_pipe_transport",
)
_OF_TRANSPORTS = (
    "pause_reading",
    "resume_reading",
    "sendto",
    "write",
    "write_eof",
    "writelines",
)
_OF_READERS = ("read", "readexactly", "readline", "readuntil")


class DebuggedLoop(asyncio.SelectorEventLoop):
    """The part of a loop that debug mode adds."""

    _debug: bool

    def check_use(self, used: object, name: str) -> None:
        """Raise if the calling thread must not use what belongs to this loop (debug mode).

        Set where the current context is known (_core/places.py).
        """
        raise NotImplementedError

    # Returns what watches while a loop in debug mode runs. Set by the package, as it is above.
    debug_watch: ClassVar[Callable[[], AbstractContextManager[object]]] = nullcontext

    def in_debug_mode(self) -> AbstractContextManager[object]:
        """Return what is entered while the loop runs."""
        return type(self).debug_watch() if self._debug else nullcontext()


def _made_by(maker: Callable[..., Any]) -> Callable[..., Any]:
    """Return asyncio's maker of transports; in debug mode they look where they are used."""

    @functools.wraps(maker)
    def make(loop: DebuggedLoop, source: Any, protocol: Any, *args: Any, **options: Any) -> Any:
        transport = maker(loop, source, protocol, *args, **options)
        if loop._debug:
            _have_look(transport, _OF_TRANSPORTS, loop.check_use)
            reader = getattr(protocol, "_stream_reader", None)  # of asyncio's streams
            if reader is not None:
                _have_look(reader, _OF_READERS, loop.check_use)
        return transport

    return make


def _have_look(used: Any, methods: tuple[str, ...], check: Callable[[Any, str], object]) -> None:
    kind: Any = type(used)
    try:
        used.__class__ = _looking(kind, methods)
        used._homebound_check = check
    except (AttributeError, TypeError):
        pass  # a library's own class, with slots


@functools.cache
def _looking(kind: type[Any], methods: tuple[str, ...]) -> type[Any]:
    """Return a subclass whose methods look first; each kind of transport has one."""
    namespace = {name: _look_first(kind, name) for name in methods if hasattr(kind, name)}
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **namespace})


def _look_first(kind: type[Any], name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(kind, name)

    @functools.wraps(method)
    def look(self: Any, *args: Any, **options: Any) -> Any:
        self._homebound_check(self, name)
        return method(self, *args, **options)

    return look


for _name in _MAKERS:
    setattr(DebuggedLoop, _name, _made_by(getattr(asyncio.SelectorEventLoop, _name)))
