"""A pytest plugin: every loop that a suite gets from asyncio is homebound's.

`pytest -p homebound_loops`, with this directory on PYTHONPATH. Loops that a suite makes by naming
their class (`asyncio.SelectorEventLoop()`) stay asyncio's.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import sys

import homebound

made = 0


def _make() -> asyncio.AbstractEventLoop:
    global made  # noqa: PLW0603  (the proof, at the end of a run, that the suite used ours)
    made += 1
    return homebound.new_event_loop()


if sys.version_info < (3, 14):

    class _Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return _make()


def pytest_configure() -> None:
    """Replace asyncio's loops, before a suite makes its first one."""
    if sys.version_info < (3, 14):
        asyncio.set_event_loop_policy(_Policy())
    else:  # asyncio deprecates policies: loops come from this function, by either name
        asyncio.new_event_loop = asyncio.events.new_event_loop = _make


def pytest_terminal_summary(terminalreporter: object) -> None:
    """Report the number of loops that were ours."""
    terminalreporter.write_line(f"homebound loops made: {made}")  # type: ignore[attr-defined]
