"""Reports of deadlocks and waits, by dump() and by the watch."""

from __future__ import annotations

import asyncio
import queue
import re
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import (
    Barrier,
    IOThread,
    Lock,
)
from homebound._debug import dump as _dump

from .deadlocks import (
    both,
    dumped,
    settle,
    until,
)

if TYPE_CHECKING:
    from homebound import Stall

pytestmark = pytest.mark.usefixtures("watched")


# dump()'s words for waits.


def test_what_tasks_wait_for_in_words(io: IOThread):
    full: homebound.Queue[int] = homebound.Queue(1)
    full.put_nowait(1)
    empty: homebound.Queue[int] = homebound.Queue()
    event, condition = homebound.Event(), homebound.Condition()

    async def notified() -> None:
        async with condition:
            await condition.wait()

    tasks = [
        io.spawn(each, name=name)
        for name, each in (
            ("put", full.put(2)),
            ("get", empty.get()),
            ("join", full.join()),
            ("event", event.wait()),
            ("condition", notified()),
            ("barrier", Barrier(2).wait()),
            ("sleep", asyncio.sleep(1000)),
        )
    ]
    until(lambda: "sleeps for another" in dumped())
    text = dumped()
    assert "task 'put': waits for room in the Queue\n" in text
    assert "task 'get': waits for an item of the Queue\n" in text
    assert "task 'join': waits for all work of the Queue to be done\n" in text
    assert "task 'event': waits for the Event to be set\n" in text
    assert "task 'condition': waits for a notification of the Condition\n" in text
    assert "task 'barrier': waits for the others at the Barrier\n" in text
    assert re.search(r"task 'sleep': sleeps for another (1e\+03|99\d) s", text)
    assert f"room in the Queue at {id(full):#x}" in "".join(_dump.describe())
    settle(*tasks)


# The watch itself.


def test_the_watch_reports_it_once(io: IOThread, io2: IOThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)
    stalls: queue.Queue[Stall] = queue.Queue()

    def report(stall: Stall) -> None:
        if stall.kind == "deadlock":  # a home may have to wait for a core of the machine
            stalls.put(stall)

    with homebound.watch_stalls(0.01, report=report):
        tasks = [
            io.spawn(both(one, two, have_one), name="a"),
            io2.spawn(both(two, one, have_one), name="b"),
        ]
        stall = stalls.get(timeout=20)
        assert stall.threads == ()
        assert "task 'a' waits for the Lock at 0x" in stall.message
        assert "in both" in stall.stacks
        settle(*tasks)
    assert stalls.empty()
