"""The pages of an overlay's file, as bytes: header, journal head, bitmap. No I/O in here.

docs/design/block.md has the layout and the order in which pages are written.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from ._probe import OVERLAY_SIGN

PAGE = 4096
HEADER_PAGE, JOURNAL_PAGE, FIRST_BITMAP_PAGE = 0, 1, 2
_JOURNAL_MAGIC = b"homebound journal\n"
_VERSION = 1
_COMMITTING = 1  # a flag
_TAIL = struct.Struct("<Q4sI")  # number of the page, start of the UUID, CRC-32
_HEADER = struct.Struct("<24sII16sQQQqQQQI")
_JOURNAL = struct.Struct("<24s16sQQI")
_NUMBER = struct.Struct("<Q")
BODY = PAGE - _TAIL.size
STATES_A_PAGE = BODY * 4  # blocks whose states, of two bits, are in one page
_ALIGNMENT = 64 << 10  # of the data
_SMALL, _LARGE = 4096, 64 << 10  # block sizes
_LARGE_FROM = 256 << 30  # bytes of a disk above which its blocks are large
_BITS = 0x03


class Damaged(Exception):  # noqa: N818  (no error until the file that it is in has a name)
    """Bytes that are not what was written; the text says which."""


def seal(number: int, uuid: bytes, body: bytes) -> bytes:
    """Return a page with what tells that it is whole and in its place."""
    page = body.ljust(BODY, b"\0") + _TAIL.pack(number, uuid[:4], 0)[:-4]
    return page + zlib.crc32(page).to_bytes(4, "little")


def unseal(number: int, uuid: bytes | None, page: bytes) -> bytes:
    """Return the body of a page. Raises Damaged."""
    if len(page) != PAGE:
        raise Damaged("the file is truncated")
    found, owner, crc = _TAIL.unpack_from(page, BODY)
    if crc != zlib.crc32(page[:-4]) or found != number:
        raise Damaged(f"page {number} is damaged")
    if uuid is not None and owner != uuid[:4]:
        raise Damaged(f"page {number} is another overlay's")
    return page[:BODY]


@dataclass(frozen=True, kw_only=True)
class Header:
    """The contents of page 0."""

    uuid: bytes
    block_size: int
    size: int
    base_size: int
    base_mtime: int  # ns; 0: not known
    base_path: bytes
    committing: bool = False

    @property
    def blocks(self) -> int:
        """The number of blocks of the disk; the last may be short."""
        return -(-self.size // self.block_size)

    @property
    def bitmap_pages(self) -> int:
        """The number of pages that their states take."""
        return -(-self.blocks // STATES_A_PAGE)

    @property
    def journal_offset(self) -> int:
        """The offset of the journal's body."""
        return (FIRST_BITMAP_PAGE + self.bitmap_pages) * PAGE

    @property
    def data_offset(self) -> int:
        """The offset of the data, after a journal of all pages."""
        pages = self.bitmap_pages + 1
        end = self.journal_offset + _table_size(pages) + pages * PAGE
        return -(-end // _ALIGNMENT) * _ALIGNMENT

    @property
    def file_size(self) -> int:
        """The length of the file."""
        return self.data_offset + self.size

    def pack(self) -> bytes:
        """Page 0. Raises ValueError if the base's path is too long."""
        if _HEADER.size + len(self.base_path) > BODY:
            raise ValueError("the path of the base is too long")
        fields = _HEADER.pack(
            OVERLAY_SIGN,
            _VERSION,
            _COMMITTING if self.committing else 0,
            self.uuid,
            self.block_size,
            self.size,
            self.base_size,
            self.base_mtime,
            self.bitmap_pages,
            self.journal_offset,
            self.data_offset,
            len(self.base_path),
        )
        return seal(HEADER_PAGE, self.uuid, fields + self.base_path)

    @classmethod
    def unpack(cls, page: bytes) -> Header:
        """Return the contents of page 0. Raises Damaged."""
        if not page.startswith(OVERLAY_SIGN):
            raise Damaged("it is not an overlay: its header does not say so")
        body = unseal(HEADER_PAGE, None, page)
        _, version, flags, uuid, block, size, base_size, mtime, *places, length = (
            _HEADER.unpack_from(body)
        )
        if version != _VERSION:
            raise Damaged(f"it is of version {version}, which is newer than this program")
        header = cls(
            uuid=uuid,
            block_size=block,
            size=size,
            base_size=base_size,
            base_mtime=mtime,
            base_path=body[_HEADER.size : _HEADER.size + length],
            committing=bool(flags & _COMMITTING),
        )
        there = [header.bitmap_pages, header.journal_offset, header.data_offset] if block else []
        if block not in (_SMALL, _LARGE) or not size or places != there:
            raise Damaged("its header makes no sense")
        return header


def block_size_for(size: int) -> int:
    """Return the block size of a disk of `size` bytes, so that its states fit into memory well."""
    return _SMALL if size <= _LARGE_FROM else _LARGE


def pack_states(states: bytes) -> bytes:
    """Two bits a block, from a byte a block."""
    states = states.ljust(STATES_A_PAGE, b"\0")
    packed = 0
    for part in range(4):  # every fourth block; no sum of two is above a byte's bits
        packed |= int.from_bytes(states[part::4], "little") << (2 * part)
    return packed.to_bytes(BODY, "little")


def unpack_states(body: bytes) -> bytes:
    """Return a byte a block, from two bits a block."""
    packed = int.from_bytes(body, "little")
    mask = int.from_bytes(bytes([_BITS]) * BODY, "little")
    states = bytearray(STATES_A_PAGE)
    for part in range(4):
        states[part::4] = ((packed >> (2 * part)) & mask).to_bytes(BODY, "little")
    return bytes(states)


def pack_journal(header: Header, pages: dict[int, bytes]) -> tuple[bytes, bytes]:
    """Return the journal's head, and its body: a table of page numbers, and the pages."""
    table = b"".join(_NUMBER.pack(number) for number in pages)
    body = table.ljust(_table_size(len(pages)), b"\0") + b"".join(pages.values())
    fields = (_JOURNAL_MAGIC, header.uuid, header.journal_offset, len(pages), zlib.crc32(body))
    return seal(JOURNAL_PAGE, header.uuid, _JOURNAL.pack(*fields)), body


def find_journal(head: bytes, file_size: int) -> tuple[int, int]:
    """Return the journal's body: offset and length, 0 for none and for a torn head."""
    try:
        body = unseal(JOURNAL_PAGE, None, head)
    except Damaged:
        return 0, 0
    magic, _, offset, count, _ = _JOURNAL.unpack_from(body)
    length = _table_size(count) + count * PAGE
    if not magic.startswith(_JOURNAL_MAGIC) or offset + length > file_size:
        return 0, 0
    return offset, length


def unpack_journal(head: bytes, body: bytes) -> dict[int, bytes]:
    """Return the pages in a journal that is whole; none of one that was torn."""
    _, _, _, count, crc = _JOURNAL.unpack_from(head)
    if zlib.crc32(body) != crc:
        return {}
    at = _table_size(count)
    numbers = [_NUMBER.unpack_from(body, n * _NUMBER.size)[0] for n in range(count)]
    return {number: body[at + n * PAGE : at + (n + 1) * PAGE] for n, number in enumerate(numbers)}


def _table_size(pages: int) -> int:
    return -(-pages * _NUMBER.size // PAGE) * PAGE
