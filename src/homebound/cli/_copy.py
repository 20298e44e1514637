"""`homebound copy`: opens both ends, copies, verifies; what is resumed, and what errors say.

What only some options need is loaded for them: a copy lasts little longer than its program's start.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ..block._copying.compare import Comparison
from ..block._copying.engine import Copy
from ..block._copying.errors import CopyError, Differs
from ..block._names import MEMORY
from ..block._to_end import to_end
from ..nbd import NBDDisk
from ._copy_report import Report
from ._disks import AUTO, label_of
from ._errors import CommandError
from ._interrupt import ending_with
from ._places import (
    STREAM,
    check_different,
    check_replaced,
    identity,
    is_plain_file,
    make_file,
    open_image,
    open_place,
)
from ._remote import DIRTY_BITMAP, Link
from ._sizes import show_size
from ._stdio import tell

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from ..block import Disk
    from ..block._copying.plan import Changed
    from ..block._copying.state import CopyState

_DIRTY = 1  # the flag of an extent in a dirty bitmap
_TRIED = {
    "read": "cannot read {}",
    "write": "cannot write to {}",
    "zero": "cannot write zeroes to {}",
    "flush": "cannot flush {}",
    "map": "cannot read the bitmap of {}",
}


@dataclass(frozen=True)
class CopyJob:
    """A copy as the command line describes it."""

    source: str
    target: str
    link: Link = field(default_factory=Link)  # to NBD servers
    bitmap: str | None = None
    resume: str | None = None  # the path of the state file
    verify: bool = False
    as_json: bool = False
    raw: bool = False  # DST becomes raw, whatever it is
    source_format: str = AUTO

    async def run(self) -> None:
        """Copy. Raises CommandError, DiskError or NBDError."""
        if not self.raw and is_plain_file(self.target):
            await to_end(partial(check_replaced, self.target))
        try:
            async with AsyncExitStack() as stack:
                if self.target == STREAM:
                    from ._copy_streams import copy_out  # noqa: PLC0415  (see above)

                    source = await self._open_source(stack)
                    report = Report(source.size, as_json=self.as_json)
                    await copy_out(source, report)
                elif self.source == STREAM:
                    from ._copy_streams import copy_in  # noqa: PLC0415  (see above)

                    await copy_in(stack, self.target, self.link, as_json=self.as_json)
                else:
                    await self._copy(stack)
        except CopyError as error:
            raise CommandError(self._explain(error)) from error

    def _explain(self, error: CopyError) -> str:
        spec = self.target if error.target else self.source
        streams = ("standard input", "standard output")
        label = streams[error.target] if spec == STREAM else repr(label_of(spec))
        where = "" if error.action == "flush" else f" at offset {error.offset}"
        return f"{_TRIED[error.action].format(label)}{where}: {error}"

    async def _copy(self, stack: AsyncExitStack) -> None:
        check_different(self.source, self.target)
        saved = await self._saved()
        source = await self._open_source(stack)
        target, fresh = await self._open_target(stack, source.size, keep=saved is not None)
        start, state = 0, None
        if self.resume:
            state = self._state(source, target, saved)
            if saved is not None:
                start, fresh = saved.done, False
        changed = await self._changed(source)
        copy = Copy(source, target, start=start, fresh=fresh, changed=changed)
        report = Report(source.size, as_json=self.as_json)
        async with report.showing("copying", copy):
            if state is not None:
                work = self._with_checkpoints(copy, state)
            elif isinstance(target, NBDDisk) and self.link.reconnect_delay:
                from ..block._copying.checkpoints import keep_stable  # noqa: PLC0415  (see above)

                work = _until_done(copy.run(), keep_stable(copy))
            else:
                work = copy.run()
            await ending_with(work, source, target)
        if self.verify:
            await self._compare(report, Comparison(source, target, changed=changed))
        if self.resume:
            await self._forget_state(self.resume)
        report.finish(copy, verified=self.verify, began_at=start)

    async def _open_source(self, stack: AsyncExitStack) -> Disk:
        meta = (f"{DIRTY_BITMAP}{self.bitmap}",) if self.bitmap is not None else ()
        if self.source_format != AUTO:
            source = await open_image(self.source, self.source_format)
        else:
            source = await open_place(self.source, read_only=True, link=self.link, meta=meta)
        return stack.enter_context(source)

    async def _open_target(
        self, stack: AsyncExitStack, size: int, *, keep: bool
    ) -> tuple[Disk, bool]:
        """Return the target, and whether it reads as zeroes.

        A plain file is made anew, unless `keep` or the changes go into what it has.
        """
        if not size:  # only a server has such a disk
            raise CommandError(f"{label_of(self.source)!r} is empty: there is nothing to copy")
        fresh = self.target.startswith(MEMORY)
        if is_plain_file(self.target) and not keep:
            exists = os.path.exists(self.target)  # noqa: ASYNC240, PTH110  (it may be bytes)
            fresh = self.bitmap is None or not exists
            if fresh:
                await make_file(self.target, size, self.source)
        disk = await open_place(self.target, read_only=False, link=self.link)
        target = stack.enter_context(disk)
        check_target(self.target, target, size)
        return target, fresh

    async def _saved(self) -> CopyState | None:
        """Return what the state file says, None if there is none."""
        if not self.resume:
            return None
        from ..block._copying.state import load_state  # noqa: PLC0415  (see above)

        return await to_end(partial(load_state, self.resume))

    def _state(self, source: Disk, target: Disk, saved: CopyState | None) -> CopyState:
        """Return the state to go on from. Raises StateError if what was saved is another copy's."""
        from ..block._copying.state import CopyState, check_same  # noqa: PLC0415  (see above)

        state = CopyState(
            identity(self.source, source, changes=False),
            identity(self.target, target, changes=True),
            self.bitmap,
        )
        if saved is None:
            return state
        assert self.resume is not None
        check_same(self.resume, saved, state)
        return saved

    async def _forget_state(self, path: str) -> None:
        from ..block._copying.state import remove_state  # noqa: PLC0415  (see above)

        await to_end(partial(remove_state, path))

    async def _changed(self, source: Disk) -> Changed | None:
        """Return a function that tells what the bitmap says has changed."""
        if self.bitmap is None:
            return None
        context = f"{DIRTY_BITMAP}{self.bitmap}"
        assert isinstance(source, NBDDisk)
        if context not in source.contexts():
            raise CommandError(f"{label_of(self.source)!r} has no bitmap {self.bitmap!r}")

        async def changed(offset: int, length: int) -> list[tuple[int, bool]]:
            extents = await source.status(context, offset, length)
            return [(extent.length, bool(extent.flags & _DIRTY)) for extent in extents]

        return changed

    async def _with_checkpoints(self, copy: Copy, state: CopyState) -> None:
        """Copy; whatever ends it, the state file says at last how far it came."""
        from ..block._copying.checkpoints import Checkpoints  # noqa: PLC0415  (see above)

        assert self.resume is not None
        checkpoints = Checkpoints(copy, self.resume, state)
        try:
            await checkpoints.begin()
            await _until_done(copy.run(), checkpoints.keep())
            await checkpoints.save()
        except BaseException as error:
            try:
                await checkpoints.save()
            except OSError:
                pass  # the state file has what was saved before
            if isinstance(error, asyncio.CancelledError):
                done, size = show_size(copy.done_until), show_size(copy.source.size)
                tell(f"homebound: stopped at {done} of {size}; the same command goes on there")
            raise

    async def _compare(self, report: Report, comparison: Comparison) -> None:
        try:
            async with report.showing("verifying", comparison):
                await comparison.run()
        except Differs as error:
            if self.resume:
                await self._forget_state(self.resume)
            source, target = label_of(self.source), label_of(self.target)
            words = f"{target!r} differs from {source!r} at offset {error.offset}"
            raise CommandError(words) from error


async def _until_done(work: Coroutine[Any, Any, None], beside: Coroutine[Any, Any, None]) -> None:
    """Run both until one ends, and cancel the other. Raises what either raises."""
    tasks = [asyncio.ensure_future(each) for each in (work, beside)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


def check_target(spec: str, disk: Disk, size: int) -> None:
    """Raise CommandError unless so much can be written to the disk that `spec` names."""
    label = repr(label_of(spec))
    if disk.read_only:
        raise CommandError(f"cannot write to {label}: it is read-only")
    if disk.size < size:
        raise CommandError(f"{label} is too small: it has {disk.size} bytes, of {size} to copy")
