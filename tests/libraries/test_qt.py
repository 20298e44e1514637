"""qasync on PySide6: a Qt main thread whose loop is attached, with I/O threads beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = """
import asyncio
import sys
import threading

import qasync
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

import homebound


def name():
    return threading.current_thread().name


async def far_name():
    await asyncio.sleep(0)
    return name()


async def forever():
    await asyncio.sleep(3600)


async def suspended():
    threading.Thread(target=homebound.current_task().wake).start()
    await homebound.suspend()
    return name()


async def travel(here, io):
    names = [name()]
    async with homebound.on(io.context):
        names.append(name())
    return [*names, name()]


async def main(context):
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(1))
    timer.start(0)
    async with homebound.IOThread("io") as io:
        # A plain asyncio task of Qt's loop awaits, gathers, cancels and times out tasks elsewhere.
        assert await io.spawn(far_name()) == "io"
        assert await asyncio.gather(far_name(), io.spawn(far_name())) == ["MainThread", "io"]
        slow = io.spawn(forever())
        try:
            async with asyncio.timeout(0.02):
                await slow
        except TimeoutError:
            pass
        assert slow.cancelled()
        # A task of ours at home in Qt's loop: woken from any thread, moved, sent to a worker.
        assert await context.spawn(suspended()) == "MainThread"
        assert await context.spawn(travel(context, io)) == ["MainThread", "io", "MainThread"]
        assert await context.spawn(homebound.to_worker(sum, [1, 2])) == 3
        # And an I/O thread reaches the Qt thread.
        async def ask():
            return await context.spawn(far_name())
        assert await io.spawn(ask()) == "MainThread"
        # Waiting inside a slot would have to run Qt's loop inside itself: refused, and told why.
        try:
            homebound.block_on(far_name(), context)
        except homebound.ContextError as error:
            print("refused:", error)
        # What runs elsewhere can be waited for in a plain thread.
        assert await asyncio.to_thread(homebound.block_on, far_name(), io.context) == "io"
    while not ticks:
        await asyncio.sleep(0)
    timer.stop()
    print("done")


app = QApplication(sys.argv)
loop = qasync.QEventLoop(app)
asyncio.set_event_loop(loop)
context = homebound.AioContext.attach(loop)
with loop:
    loop.run_until_complete(main(context))
"""


def test_attached_qt_loop(program: Callable[..., str]):
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)  # needs libraries of the system
    pytest.importorskip("qasync")
    printed = program(PROGRAM, QT_QPA_PLATFORM="offscreen", QT_API="pyside6")
    assert "done" in printed
    assert "refused: block_on" in printed
    assert "which cannot be run from inside itself" in printed
