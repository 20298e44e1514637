"""A client's visit: what it may find here, and what was opened for it. Home thread only.

Most servers have a fixed table of exports, which all visits share. Others find exports as clients
ask for them; then a visit runs the searches of its client, one at a time, and closes what it found.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeGuard, cast

from ...block._disk import Disk
from ...block._to_end import close_in_worker
from .._protocol.export import ExportInfo, ExportTable
from .._protocol.lookups import Lookups, SearchError
from .._protocol.wire import TransmissionFlag
from .faults import logger, pass_on_interrupt, safe_repr
from .published import Export, as_export
from .served import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .._protocol.lookups import Wanted
    from .budget import Budget
    from .client_info import ClientInfo
    from .served import Served

    Listed = Iterable[str | tuple[str, str]]

_KINDS_KEPT = 256  # names of exports whose reported failures are remembered


class Exports(Protocol):
    """Exports that are found as clients ask for them, in place of a mapping.

    Any object with such a `find` will do; it need not derive from this class. It may have a `list`
    as well, `async def list(self)` or a plain function that returns at once: the names of the
    exports, or pairs of a name and a description, for clients that ask which there are. Without
    `list` they are told of none.
    """

    async def find(self, name: str, client: ClientInfo) -> Export | Disk | None:
        """Return what to serve to this connection under `name`; None: there is no such export.

        What is returned is the connection's own, and is closed with it (see `Export.on_close`).

        Called from: task.
        """


def is_finder(exports: object) -> TypeGuard[Exports]:
    """Return whether exports are found by a function of the user's; a str has a `find` as well."""
    find = getattr(exports, "find", None)
    fixed = isinstance(exports, (Disk, Export, Mapping))
    return callable(find) and not fixed and not inspect.isbuiltin(find)


class Visit(Protocol):
    """The exports of the server as one connection sees them."""

    table: ExportTable | Lookups

    def look_up(self, wanted: Wanted, done: Callable[[], None]) -> None:
        """Begin a search; `done` is called at its end, unless the visit ends before."""

    def served(self, name: str) -> Served:
        """Return the export of that name, which was found."""

    def end(self, leave: Callable[[], None]) -> None:
        """End the visit, and call `leave` when nothing of it is left."""


class FixedVisit:
    """A visit to a table that never changes; one for all clients."""

    def __init__(self, table: ExportTable, served: Mapping[str, Served]) -> None:
        self.table: ExportTable | Lookups = table
        self._served = served

    def look_up(self, wanted: Wanted, done: Callable[[], None]) -> None:
        """Do nothing: a table needs no searches."""

    def served(self, name: str) -> Served:
        """Return the export of that name."""
        return self._served[name]

    def end(self, leave: Callable[[], None]) -> None:
        """End the visit of one client."""
        leave()


class Finder:
    """The exports of a server that finds them, and how. Made once; used by all homes."""

    def __init__(
        self,
        exports: Exports,
        *,
        default: str | None,
        budget: Budget,
        round_size: int,
        time_limit: float | None,
    ) -> None:
        self.exports = exports
        self.default = default
        self.time_limit = time_limit
        self._budget = budget
        self._round_size = round_size
        # The kinds of failures that were logged, by export: see Faults. Its setdefault is atomic.
        self._told: dict[str, dict[object, object]] = {}
        self._reported: dict[str, object] = {}

    def is_new(self, text: str) -> bool:
        """Return whether a report is the first of its kind, so that no client fills the log."""
        if len(self._reported) > _KINDS_KEPT:
            self._reported.clear()
        token = object()
        return self._reported.setdefault(text, token) is token

    def serve(self, name: str, export: Export) -> Served:
        """Make the state of an export that was found for one connection."""
        if len(self._told) > _KINDS_KEPT:
            self._told.clear()
        told = self._told.setdefault(name, {})
        return serve(name, export, self._budget, self._round_size, told)

    async def list(self) -> list[ExportInfo]:
        """List the exports. Raises what the user's function raises."""
        listing: Callable[[], Listed | Awaitable[Listed]] | None
        listing = getattr(self.exports, "list", None)
        if listing is None:
            return []
        listed = listing()
        names = await listed if inspect.isawaitable(listed) else cast("Listed", listed)
        return [_listed(each) for each in names]


def _listed(each: object) -> ExportInfo:
    name, description = each if isinstance(each, tuple) else (each, "")
    if not (isinstance(name, str) and isinstance(description, str)):
        raise TypeError(f"list() must return names, or pairs of strings; it returned {each!r}")
    return ExportInfo(name, 0, TransmissionFlag.HAS_FLAGS, description)


class FindingVisit:
    """A visit whose exports are searched for."""

    def __init__(self, finder: Finder, client: ClientInfo) -> None:
        self._finder = finder
        self._client = client
        self._lookups = Lookups()
        self.table: ExportTable | Lookups = self._lookups
        self._found: Served | None = None
        self._release: Callable[[], object] | None = None  # closes what was found
        self._flushes = False  # and before, it is flushed
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._ended = False

    def look_up(self, wanted: Wanted, done: Callable[[], None]) -> None:
        """Begin a search; `done` is called at its end, unless the visit ends before."""
        work = self._list() if wanted.name is None else self._find(wanted.name)
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(partial(self._looked_up, done))

    def served(self, name: str) -> Served:
        """Return the export that was found last."""
        assert self._found is not None, name
        return self._found

    def end(self, leave: Callable[[], None]) -> None:
        """Cancel a search, close what was found, then leave."""
        if self._ended:
            return
        self._ended = True
        if self._task is None and self._found is None:
            leave()
            return
        if self._task is not None:
            self._task.cancel()
        # Kept: asyncio's loop keeps only weak references to its tasks.
        self._closing = asyncio.get_running_loop().create_task(self._close_all())
        self._closing.add_done_callback(lambda _: leave())

    def _looked_up(self, done: Callable[[], None], _: asyncio.Task[None]) -> None:
        self._task = None
        if not self._ended:
            done()

    async def _list(self) -> None:
        result: list[ExportInfo] | SearchError = SearchError("the listing was cancelled")
        try:
            async with asyncio.timeout(self._finder.time_limit):
                result = await self._finder.list()
        except BaseException as failure:  # noqa: BLE001  (see _find)
            result = SearchError("the exports could not be listed")
            self._report("listing the exports", failure)
        finally:
            self._lookups.add_list(result)

    async def _find(self, name: str) -> None:
        await self._close_found()
        result: ExportInfo | SearchError | None = SearchError("the search was cancelled")
        try:
            async with asyncio.timeout(self._finder.time_limit):
                wanted = name or self._finder.default or name
                found = await self._finder.exports.find(wanted, self._client)
                # At once: a search that was cancelled too late has a disk all the same.
                if found is not None:
                    self._keep(wanted, found)
            result = None if self._found is None else self._found.info
        except BaseException as failure:  # noqa: BLE001  (a SystemExit would end the home)
            result = SearchError(_words(name, failure))
            self._report(f"finding export {name!r}", failure)
        finally:
            self._lookups.add(name, result)

    def _keep(self, name: str, found: object) -> None:
        export = as_export(name, found)
        self._release = export.on_close or export.disk.close
        self._found = self._finder.serve(name, export)
        self._flushes = export.on_close is None and not export.disk.read_only

    async def _close_all(self) -> None:
        while self._task is not None:
            try:
                await asyncio.wait((self._task,))
            except asyncio.CancelledError:
                break  # the home ends, and cancels the search as well
        await self._close_found()

    async def _close_found(self) -> None:
        release, self._release = self._release, None
        found, self._found = self._found, None
        if release is None:
            return
        try:
            try:
                if found is not None and self._flushes:
                    await found.disk.flush()
            finally:
                await close_in_worker(release)
        except BaseException as failure:  # noqa: BLE001  (the connection has no use for it)
            what = safe_repr(found.disk) if found is not None else "the disk"
            self._report(f"closing {what}", failure)

    def _report(self, what: str, failure: BaseException) -> None:
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        if isinstance(failure, asyncio.CancelledError) and me is not None and me.cancelling():
            return
        pass_on_interrupt(failure, loop)
        if isinstance(failure, TimeoutError) and not str(failure):
            failure = TimeoutError(f"not done in {self._finder.time_limit} s")
        if not self._finder.is_new(f"{what}: {failure}"):
            return
        message = f"{what} for the client {self._client.name} failed: {failure}"
        if isinstance(failure, OSError):
            logger.warning("%s", message)
            return
        loop.call_exception_handler({"message": message, "exception": failure})


def _words(name: str, failure: BaseException) -> str:
    text = f"export '{name[:256]}' could not be opened"
    if isinstance(failure, OSError) and failure.strerror:
        return f"{text}: {failure.strerror}"  # others may tell of the server's insides
    return text
