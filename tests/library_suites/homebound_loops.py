"""A pytest plugin: every loop that a suite asks asyncio for is homebound's.

`pytest -p homebound_loops`, with this directory on PYTHONPATH. Loops that a suite makes by naming
their class (`asyncio.SelectorEventLoop()`) stay asyncio's.
"""

from __future__ import annotations

import asyncio

import homebound

made = 0


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        global made  # noqa: PLW0603  (the proof, at the end of a run, that the suite used ours)
        made += 1
        return homebound.new_event_loop()


def pytest_configure() -> None:
    """Before a suite makes its first loop."""
    asyncio.set_event_loop_policy(_Policy())


def pytest_terminal_summary(terminalreporter: object) -> None:
    """How many loops were ours."""
    terminalreporter.write_line(f"homebound loops made: {made}")  # type: ignore[attr-defined]
