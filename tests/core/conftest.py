"""Gates and runners for the tests of the core."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def gate() -> Iterator[Callable[[homebound.AioContext], threading.Event]]:
    """`gate(context)` keeps its home busy until the event it returns is set."""
    opened = []

    def close(context: homebound.AioContext) -> threading.Event:
        busy, go_on = threading.Event(), threading.Event()
        opened.append(go_on)

        def hold() -> None:
            busy.set()
            go_on.wait(20)

        context.call_soon(hold)
        assert busy.wait(20)
        return go_on

    yield close
    for event in opened:
        event.set()


@pytest.fixture(params=["homebound", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Both runners: what a test finds with one, it must find with the other."""
    return homebound.run if request.param == "homebound" else asyncio.run
