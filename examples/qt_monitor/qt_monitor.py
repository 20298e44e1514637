"""A window that watches the homes of its program at work, and ends them as it closes.

    python examples/qt_monitor/qt_monitor.py [--screenshot FILE]

Two I/O threads talk to a third over TCP, and each round trip wakes a task at home in Qt's loop, by
a `homebound.Queue`. `--screenshot` takes a picture after a while, and closes the window. Needs
PySide6 and qasync.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import socket
from collections import deque
from pathlib import Path

import qasync
from PySide6.QtCore import QPointF
from PySide6.QtGui import QCloseEvent, QColor, QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QApplication, QGridLayout, QLabel, QWidget

import homebound

INTERVAL = 0.1  # seconds between two looks
LOOKS = 40  # in a graph
CLIENTS = 2


class Graph(QWidget):
    """The last values of a figure, as a line."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(260, 34)
        self.values: deque[float] = deque(maxlen=LOOKS)

    def add(self, value: float) -> None:
        self.values.append(value)
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802  (Qt's name)
        top = max([*self.values, 1.0])
        step, height = self.width() / (LOOKS - 1), self.height() - 4
        points = [
            QPointF(number * step, 2 + height * (1 - value / top))
            for number, value in enumerate(self.values)
        ]
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor("white"))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor("#1f6feb"), 1.5))
        painter.drawPolyline(QPolygonF(points))
        painter.end()


class Row:
    """A home's line in the window."""

    def __init__(self, name: str, context: homebound.AioContext, grid: QGridLayout) -> None:
        self.context = context
        self.last = context.stats()
        self.figures = [QLabel() for _ in range(3)]
        self.graph = Graph()
        line = grid.rowCount()
        for column, widget in enumerate([QLabel(name), *self.figures, self.graph]):
            grid.addWidget(widget, line, column)

    def look(self) -> None:
        """Show what the home has done since the last look; `stats()` may be called anywhere."""
        now = self.context.stats()
        entered = (now.entered - self.last.entered) / INTERVAL
        wakeups = (now.wakeups - self.last.wakeups) / INTERVAL
        for label, value in zip(self.figures, (now.tasks, entered, wakeups), strict=True):
            label.setText(f"{value:.0f}")
        self.graph.add(entered)
        self.last = now


class Window(QWidget):
    """One line for each home. Its first close is a wish, which `closing` tells the program."""

    def __init__(self) -> None:
        super().__init__()
        self.setWindowTitle("homebound: the homes of this program")
        self.grid = QGridLayout(self)
        graphs = f"steps/s, {LOOKS * INTERVAL:.0f} seconds"
        for column, title in enumerate(("home", "tasks", "steps/s", "wake-ups/s", graphs)):
            self.grid.addWidget(QLabel(f"<b>{title}</b>"), 0, column)
        self.status = QLabel("starting")
        self.rows: list[Row] = []
        self.closing = asyncio.Event()
        self.ended = False

    def watch(self, homes: dict[str, homebound.AioContext]) -> None:
        self.rows = [Row(name, context, self.grid) for name, context in homes.items()]
        self.grid.addWidget(self.status, self.grid.rowCount(), 0, 1, 5)

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802  (Qt's name)
        if not self.ended:
            event.ignore()  # the window stays until the threads have ended
            self.closing.set()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
    except (ConnectionResetError, asyncio.CancelledError):
        # The client has been stopped with an answer on its way, or this thread has with the
        # client's end on its way: Python 3.11 logs a connection's task that is cancelled.
        pass
    finally:
        writer.close()


async def serve(listener: socket.socket) -> None:
    async with await asyncio.start_server(echo, sock=listener) as server:
        await server.serve_forever()


async def talk(port: int, trips: homebound.Queue[float]) -> None:
    """Make round trips, now more and now fewer, until the thread is stopped."""
    clock = asyncio.get_running_loop().time
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            begun = clock()
            writer.write(b"hello\n")
            await reader.readline()
            trips.put_nowait(clock() - begun)  # wakes the task in Qt's loop
            await asyncio.sleep(0.02 + 0.015 * math.sin(2 * clock()))
    finally:
        writer.close()
        await writer.wait_closed()


async def count(window: Window, trips: homebound.Queue[float]) -> None:
    """Show the round trips: a task at home in Qt's loop, which may touch the window."""
    number = 0
    while True:
        trip = await trips.get()
        number += 1
        window.status.setText(f"{number} round trips, the last took {1000 * trip:.1f} ms")


async def look(window: Window, screenshot: Path | None) -> None:
    """Refresh the window until it is closed."""
    looks = 0
    while not window.closing.is_set():
        await asyncio.sleep(INTERVAL)
        for row in window.rows:
            row.look()
        looks += 1
        if screenshot is not None and looks == LOOKS:
            assert all(sum(row.graph.values) for row in window.rows), "a home has done nothing"
            assert window.grab().save(str(screenshot), "PNG")
            window.close()  # as a click does


async def main(window: Window, context: homebound.AioContext, screenshot: Path | None) -> None:
    trips = homebound.Queue[float]()
    threads = [homebound.IOThread(name) for name in ("server", "client 0", "client 1")]
    for io in threads:
        io.start()
    window.watch({"Qt": context} | {io.name: io.context for io in threads})
    window.show()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server, *clients = threads
    server.spawn(serve(listener))
    for io in clients:
        io.spawn(talk(port, trips))
    counting = context.spawn(count(window, trips))
    try:
        await look(window, screenshot)
    finally:
        window.status.setText("stopping")
        for io in (*clients, server):
            await io.astop()  # cancels its tasks, which close their connections; Qt goes on
            print("ended:", io.name)
    counting.cancel()
    window.ended = True
    window.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--screenshot", type=Path)
    chosen = options.parse_args()
    app = QApplication([])
    with qasync.QEventLoop(app) as loop:
        qt = homebound.AioContext.attach(loop)
        loop.run_until_complete(main(Window(), qt, chosen.screenshot))
