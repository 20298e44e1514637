"""What a copy reports: a progress bar on a terminal, lines of JSON, a summary at the end."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .._os.clock import monotonic
from ._sizes import show_size
from ._stdio import discard_output, put, tell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_EVERY_JSON = 1.0  # seconds between two lines
_EVERY_BAR = 0.2


class Counters(Protocol):
    """The counters of a copy."""

    @property
    def read(self) -> int: ...
    @property
    def written(self) -> int: ...
    @property
    def zeroes(self) -> int: ...
    @property
    def done_until(self) -> int: ...


class Position(Protocol):
    """Work that goes from the start of a disk to its end."""

    @property
    def done_until(self) -> int: ...


class Report:
    """Shows how a copy of `total` bytes goes on; None: not known.

    With `as_json` lines go to standard output, else a bar to standard error if that is a terminal.
    """

    def __init__(self, total: int | None, *, as_json: bool) -> None:
        self._total = total
        self._as_json = as_json
        self._console = Console(stderr=True)
        self._began = monotonic()

    @asynccontextmanager
    async def showing(self, what: str, work: Position) -> AsyncIterator[None]:
        """Show the progress of `work` within the block. Raises OutputError."""
        if self._as_json:
            showing = asyncio.ensure_future(self._put_lines(what, work))
        elif self._console.is_terminal:
            showing = asyncio.ensure_future(self._keep_bar(what, work))
        else:
            yield
            return
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.wait((showing,))
        if not showing.cancelled():
            showing.result()

    def finish(self, copy: Counters, *, verified: bool, began_at: int) -> None:
        """Report the end of a copy that began at an offset. Raises OutputError."""
        seconds = monotonic() - self._began
        size = self._total if self._total is not None else copy.done_until
        if self._as_json:
            summary = {
                "event": "done",
                "size": size,
                "resumed_at": began_at,
                "read": copy.read,
                "written": copy.written,
                "zeroes": copy.zeroes,
                "seconds": round(seconds, 3),
                "bytes_per_second": _rate(size - began_at, seconds),
                "verified": verified,
            }
            put(json.dumps(summary))
        elif self._console.is_terminal:
            checked = ", verified" if verified else ""
            tell(
                f"copied {show_size(size)}, {show_size(copy.written)} of it data, "
                f"in {seconds:.1f} s{checked}"
            )

    async def _put_lines(self, what: str, work: Position) -> None:
        began, start = monotonic(), work.done_until
        while True:
            await asyncio.sleep(_EVERY_JSON)
            done = work.done_until
            rate = _rate(done - start, monotonic() - began)
            left = None
            if self._total is not None and rate:
                left = round((self._total - done) / rate, 1)
            line = {
                "event": what,
                "done": done,
                "total": self._total,
                "bytes_per_second": rate,
                "seconds_left": left,
            }
            put(json.dumps(line))

    async def _keep_bar(self, what: str, work: Position) -> None:
        try:
            with self._bar() as bar:
                task = bar.add_task(what, total=self._total, completed=work.done_until)
                while True:
                    await asyncio.sleep(_EVERY_BAR)
                    bar.update(task, completed=work.done_until, refresh=True)
        except OSError:  # the terminal has gone; SIGHUP follows
            discard_output(sys.stderr)

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )


def _rate(done: int, seconds: float) -> int:
    return round(done / seconds) if seconds > 0 else 0
