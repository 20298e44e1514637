"""The file of an overlay: made, opened with repair, and kept in order. All of it blocks.

Who may call: any thread. What is written of header, journal and bitmap is written under one lock,
which is held across the system calls; workers and `close` take it, never a home while it turns.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .._os.guard import new_guard
from ._errors import ImageError
from ._file import FileDisk
from ._new_file import make_file
from ._overlay_format import (
    FIRST_BITMAP_PAGE,
    HEADER_PAGE,
    JOURNAL_PAGE,
    PAGE,
    Damaged,
    Header,
    find_journal,
    pack_journal,
    pack_states,
    seal,
    unpack_journal,
    unpack_states,
    unseal,
)
from ._probe import OVERLAY_SIGN
from ._states import BlockStates

if TYPE_CHECKING:
    from ._disk import Disk

_NO_STATE = 3  # two bits that mean nothing


class Base(NamedTuple):
    """The marks of the disk below, to tell it from another."""

    path: str  # "" for what is no file
    size: int
    mtime: int  # ns; 0: not known

    @classmethod
    def of(cls, disk: Disk) -> Base:
        """Return the marks of the file at the bottom of a disk, if there is one."""
        below = disk
        while (under := getattr(below, "disk", None)) is not None:
            below = under
        path = getattr(below, "path", None)
        if not isinstance(path, (str, bytes)):
            return cls("", disk.size, 0)
        found = Path(os.fsdecode(path)).stat()
        mtime = found.st_mtime_ns if stat.S_ISREG(found.st_mode) else 0
        return cls(absolute(os.fsdecode(path)), disk.size, mtime)


def absolute(path: str | os.PathLike[str]) -> str:
    """Return the path from the root; links stay as they are."""
    return os.path.abspath(os.fspath(path))  # noqa: PTH100  (Path.absolute keeps "..")


def base_path_of(path: str | os.PathLike[str]) -> str | None:
    """Return the base that an overlay's file names, "" for none; None for another file."""
    with open(path, "rb") as file:  # noqa: PTH123  (a path of any kind)
        page = file.read(PAGE)
    if not page.startswith(OVERLAY_SIGN):
        return None
    try:
        return os.fsdecode(Header.unpack(page).base_path)
    except Damaged as damage:
        raise _refusal(os.fspath(path), str(damage)) from None


class OverlayFile:
    """An open file, its header and the states of its blocks."""

    def __init__(self, path: str, base: Base, *, size: int | None, read_only: bool) -> None:
        self.path = path
        if os.path.exists(path) and not os.stat(path).st_size:  # noqa: PTH110, PTH116  (a str)
            raise _refusal(path, "it is truncated: nothing is left of it")
        self.disk = FileDisk(path, read_only=read_only)
        self._raw = self.disk.blocking
        # Guards header and journal in memory and in the file, and the bitmap in the file.
        self._metadata = new_guard()
        self._closed = False  # under the lock
        try:
            self._load(base, size)
        except BaseException:
            self.disk.close()
            raise

    # Opening.

    def _load(self, base: Base, size: int | None) -> None:
        try:
            repaired = self._read_journal()
            first = repaired.get(HEADER_PAGE) or self._read(HEADER_PAGE * PAGE, PAGE)
            self.header = header = Header.unpack(first)
            self._check_size()
            self.states = BlockStates(header.blocks)
            self._read_bitmap(repaired)
        except Damaged as damage:
            raise _refusal(self.path, str(damage)) from None
        self._check_base(base, size)
        self._journal_is_empty = not repaired
        if repaired and not self._raw.read_only:
            self._write_places(repaired)
            self._empty_journal()

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._raw.size:
            raise Damaged("it is truncated")
        buffer = bytearray(length)
        self._raw.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def _read_journal(self) -> dict[int, bytes]:
        """Return the pages that were on their way when the last user stopped."""
        head = self._read(JOURNAL_PAGE * PAGE, PAGE)
        at, length = find_journal(head, self._raw.size)
        pages = unpack_journal(head, self._read(at, length)) if length else {}
        return {number: page for number, page in pages.items() if self._is_whole(number, page)}

    @staticmethod
    def _is_whole(number: int, page: bytes) -> bool:
        try:
            unseal(number, None, page)
        except Damaged:
            return False
        return True

    def _read_bitmap(self, repaired: dict[int, bytes]) -> None:
        header = self.header
        bitmap = self._read(FIRST_BITMAP_PAGE * PAGE, header.bitmap_pages * PAGE)
        for n in range(header.bitmap_pages):
            number = FIRST_BITMAP_PAGE + n
            page = repaired.get(number) or bitmap[n * PAGE : (n + 1) * PAGE]
            states = unpack_states(unseal(number, header.uuid, page))
            if _NO_STATE in states:
                raise Damaged(f"page {number} is damaged")
            self.states.load(n, states)

    def _check_size(self) -> None:
        was, now = self.header.file_size, self._raw.size
        if was != now:
            raise Damaged(f"it is truncated: it had {was} bytes and has {now}")

    def _check_base(self, base: Base, size: int | None) -> None:
        header = self.header
        was = os.fsdecode(header.base_path) or "its base"
        if size is not None and size != header.size:
            raise _refusal(self.path, f"it is {header.size} bytes, and {size} were asked for")
        if base.size != header.base_size:
            text = f"{was!r} had {header.base_size} bytes, and {base.path or 'the base'!r} has "
            raise _refusal(self.path, f"{text}{base.size}: it has changed, or is another")
        if header.base_mtime and not header.committing and base.mtime != header.base_mtime:
            text = f"{was!r} has changed since, or is another file: its time of change differs"
            raise _refusal(self.path, text)

    # Keeping.

    def persist(self) -> None:
        """Have all on stable storage that was written, and the states that tell of it.

        Data first: the states are taken, then the file is synced, then they are written.
        """
        with self._metadata:
            taken = self.states.take_changed()
            try:
                self._raw.flush()  # the journal's last pages in their places, too
                if taken:
                    self._store(self._seal_states(taken))
            except BaseException:
                self.states.put_back(taken)
                raise
            self.states.stored(taken)

    def change_header(self, *, committing: bool, base_mtime: int) -> None:
        """Have another header on stable storage."""
        with self._metadata:
            header = dataclasses.replace(self.header, committing=committing, base_mtime=base_mtime)
            self._raw.flush()
            self._store({HEADER_PAGE: header.pack()})
            self.header = header

    def close(self) -> None:
        """Persist, leave an empty journal, and close. Raises OSError if that fails; it is closed.

        May be called again.
        """
        with self._metadata:
            first, self._closed = not self._closed, True
        self.states.freeze()
        try:
            if first and not self._raw.read_only:
                self._settle()
        finally:
            self.disk.close()

    def _settle(self) -> None:
        if self.states.has_changed():
            self.persist()
        with self._metadata:
            if not self._journal_is_empty:
                self._raw.flush()
                self._empty_journal()

    def _seal_states(self, taken: dict[int, bytes]) -> dict[int, bytes]:
        uuid = self.header.uuid
        return {
            FIRST_BITMAP_PAGE + n: seal(FIRST_BITMAP_PAGE + n, uuid, pack_states(states))
            for n, states in taken.items()
        }

    def _store(self, pages: dict[int, bytes]) -> None:
        """Write pages by way of the journal, whose last pages are in place and synced."""
        head, body = pack_journal(self.header, pages)
        self._journal_is_empty = False
        self._raw.write(self.header.journal_offset, body)
        self._raw.write(JOURNAL_PAGE * PAGE, head)
        self._raw.flush()
        self._write_places(pages)

    def _write_places(self, pages: dict[int, bytes]) -> None:
        for number, page in pages.items():
            self._raw.write(number * PAGE, page)

    def _empty_journal(self) -> None:
        self._raw.flush()
        self._raw.write(JOURNAL_PAGE * PAGE, pack_journal(self.header, {})[0])
        self._journal_is_empty = True


def make_overlay(path: str, base: Base, *, size: int, block_size: int) -> None:
    """Make the file of an overlay in which every block is the base's. Raises ImageError."""
    header = Header(
        uuid=os.urandom(16),
        block_size=block_size,
        size=size,
        base_size=base.size,
        base_mtime=base.mtime,
        base_path=os.fsencode(base.path),
    )
    empty = pack_states(b"")

    def fill(fd: int) -> None:
        os.ftruncate(fd, header.file_size)
        pages = [header.pack(), pack_journal(header, {})[0]]
        numbers = range(FIRST_BITMAP_PAGE, FIRST_BITMAP_PAGE + header.bitmap_pages)
        pages += [seal(number, header.uuid, empty) for number in numbers]
        _write_all(fd, b"".join(pages))

    try:
        make_file(path, fill)
    except FileExistsError:
        return  # another process was first, and it is opened like any other
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EINVAL
        text = f"cannot make overlay {path!r}: {getattr(error, 'strerror', None) or error}"
        raise ImageError(number, text) from error


def _write_all(fd: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], done)


def _refusal(path: str, text: str) -> ImageError:
    return ImageError(errno.EINVAL, f"cannot open overlay {path!r}: {text}")
