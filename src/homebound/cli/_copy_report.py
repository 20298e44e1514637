"""The reports of a copy: a progress bar on a terminal, lines of JSON, a summary at the end."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from .._os.clock import monotonic
from ._sizes import show_size
from ._stdio import discard_output, has_terminal, put, tell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.progress import Progress

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
        self._began = monotonic()

    @asynccontextmanager
    async def showing(self, what: str, work: Position) -> AsyncIterator[None]:
        """Show the progress of `work` within the block. Raises OutputError."""
        if self._as_json:
            showing = asyncio.ensure_future(self._put_lines(what, work))
        elif has_terminal():
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
            _put_json(summary)
        elif has_terminal():
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
            _put_json(line)

    async def _keep_bar(self, what: str, work: Position) -> None:
        try:
            with _bar() as bar:
                task = bar.add_task(what, total=self._total, completed=work.done_until)
                while True:
                    await asyncio.sleep(_EVERY_BAR)
                    bar.update(task, completed=work.done_until, refresh=True)
        except OSError:  # the terminal has gone; SIGHUP follows
            discard_output(sys.stderr)


def _bar() -> Progress:
    from rich import progress  # noqa: PLC0415  (for a terminal only: it takes longer than click)
    from rich.console import Console  # noqa: PLC0415

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )


def _put_json(line: dict[str, Any]) -> None:
    import json  # noqa: PLC0415  (a copy's program starts in little more time than it takes)

    put(json.dumps(line))


def _rate(done: int, seconds: float) -> int:
    return round(done / seconds) if seconds > 0 else 0
