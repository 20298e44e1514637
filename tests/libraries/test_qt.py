"""qasync on PySide6: a Qt main thread whose loop is attached, with I/O threads beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PRELUDE = """
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
"""

TRAVEL = """
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
"""

MAIN = """
from PySide6.QtCore import QEventLoop


def held(fn):
    with homebound.big_lock:
        return fn()


async def add(lock, total):
    for _ in range(50):
        async with lock:
            total.append(1)


async def guarded():
    assert homebound.big_lock.held()
    return name()


async def dialog(context):
    # A modal dialog: Qt's loop runs inside the task, and other tasks inside that.
    inner = QEventLoop()
    async def accept():
        inner.quit()
    context.spawn(accept())
    inner.exec()
    assert homebound.current_task().get_name() == "dialog"
    return "closed"


def slot(task, order):
    task.wake()
    order.append("slot returned")


async def sleeper(order):
    await homebound.suspend()
    order.append(name())


async def main(context):
    assert homebound.main_context() is context is homebound.current_context()
    async with homebound.IOThread("io") as io:
        def device():
            # A holder of the big lock is no stand-in of Qt's thread: all is queued there.
            assert homebound.current_context() is None
            assert homebound.block_on(guarded()) == "MainThread"
            for act in (context.poll, lambda: homebound.wait_while(bool)):
                try:
                    act()
                except homebound.ContextError as error:
                    print("refused:", error)
            return homebound.block_on(far_name(), io.context)
        assert await asyncio.to_thread(held, device) == "io"
        assert await asyncio.to_thread(homebound.block_on, guarded()) == "MainThread"
        lock, total = homebound.Lock(), []
        tasks = [each.spawn(add(lock, total)) for each in (context, io)]
        await asyncio.gather(*tasks, add(lock, total))
        assert len(total) == 150
        assert await context.spawn(dialog(context), name="dialog") == "closed"
        order = []
        task = context.spawn(sleeper(order))
        await context.spawn(far_name())
        QTimer.singleShot(0, lambda: slot(task, order))
        await task
        assert order == ["MainThread", "slot returned"]
        future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().ours = [context.spawn(homebound.suspend()), future]
    await context.spawn(far_name())


async def told(what):
    try:
        await what
    except homebound.ContextClosed:
        return "told"
"""

LAUNCH = """
app = QApplication(sys.argv)
loop = qasync.QEventLoop(app)
asyncio.set_event_loop(loop)
context = homebound.AioContext.attach(loop)
assert homebound.main_context() is None
with homebound.IOThread("outlives") as outlives:
    with loop:
        for _ in range(2):
            loop.run_until_complete(main(context))
            assert homebound.main_context() is None is homebound.current_context()
        waiters = [outlives.spawn(told(what)) for what in getattr(loop, "ours", ())]
        homebound.block_on(far_name(), outlives.context)
    assert [homebound.block_on(waiter) for waiter in waiters] == ["told"] * len(waiters)
print("done")
"""


@pytest.fixture
def qt_program(program: Callable[..., str]) -> Callable[[str], str]:
    """Run `main(context)` on qasync, twice."""
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)  # needs libraries of the system
    pytest.importorskip("qasync")

    def run(main: str) -> str:
        return program(PRELUDE + main + LAUNCH, QT_QPA_PLATFORM="offscreen", QT_API="pyside6")

    return run


def test_attached_qt_loop(qt_program: Callable[[str], str]):
    printed = qt_program(TRAVEL)
    assert "done" in printed
    assert "refused: block_on" in printed
    assert "which cannot be run from inside itself" in printed


def test_qt_as_the_main_home(qt_program: Callable[[str], str]):
    """The big lock, nested Qt loops, slots that wake tasks, and the loop's end."""
    printed = qt_program(MAIN)
    assert "done" in printed
    assert "refused: poll" in printed
    assert "refused: wait_while with the big lock" in printed


QUIT = """
from PySide6.QtCore import QEventLoop

io = homebound.IOThread("io")
cleaned = []


async def until_stopped():
    try:
        await homebound.suspend()
    finally:
        await asyncio.sleep(0.001)
        cleaned.append(name())


def end_threads():
    # The loop still runs here, in a nested loop of Qt's: what is awaited goes on.
    inner = QEventLoop()
    asyncio.ensure_future(io.astop()).add_done_callback(lambda _: inner.quit())
    inner.exec()
    print("ended", cleaned, io)


async def clicked():
    # A task that a slot has started, as Qt programs do.
    task = homebound.current_task()
    threading.Thread(target=task.wake).start()
    await homebound.suspend()
    async with homebound.on(io.context):
        print("clicked", name())
    app.quit()


app = QApplication(sys.argv)
loop = qasync.QEventLoop(app)
asyncio.set_event_loop(loop)
homebound.AioContext.attach(loop, tasks=True)
io.start()
io.spawn(until_stopped())
app.aboutToQuit.connect(end_threads)
QTimer.singleShot(0, lambda: asyncio.ensure_future(clicked()))
with loop:
    loop.run_forever()
print("done")
"""


def test_threads_end_as_qt_quits(program: Callable[..., str]):
    """`astop` from `aboutToQuit`, and tasks that a slot has started and any thread wakes."""
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
    pytest.importorskip("qasync")
    printed = program(PRELUDE + QUIT, QT_QPA_PLATFORM="offscreen", QT_API="pyside6")
    assert printed.splitlines() == ["clicked io", "ended ['io'] <IOThread 'io' ended>", "done"]
