"""Slow requests: their division into slices, and the replies of a slice."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebound.nbd._protocol.wire import Command, CommandFlag, Error
from homebound.nbd._server.ranges import Ranges
from homebound.nbd._server.slow import (
    SLICE_BYTES,
    SLICES,
    Replies,
    Slice,
    SlowRead,
    SlowRequest,
    all_failed,
    split,
)

if TYPE_CHECKING:
    from homebound.block._disk import Buffer

FUA = int(CommandFlag.FUA)
SIZE = 4096

requests = st.builds(
    SlowRequest,
    st.sampled_from([Command.READ, Command.WRITE, Command.FLUSH, Command.TRIM]),
    st.sampled_from([0, 0, FUA]),
    st.integers(0, 2**64 - 1),
    st.just(0),
    st.sampled_from([0, 512, 4096, 1 << 18, SLICE_BYTES, 2 * SLICE_BYTES]),
)


@given(st.lists(requests, max_size=100))
def test_slices_keep_all_in_order_and_are_small_enough(asked: list[SlowRequest]):
    slices = split(asked)
    assert [request for part in slices for request in part] == asked
    share = -(-len(asked) // SLICES)
    for part in slices:
        assert 1 <= len(part) <= share
        assert sum(request.length for request in part[:-1]) < SLICE_BYTES
        if len(part) > 1:
            assert all(request.command in (Command.READ, Command.WRITE) for request in part)
            assert not any(request.flags & FUA for request in part)


def test_many_small_ones_make_few_slices():
    reads = [SlowRequest(Command.READ, 0, cookie, 0, 4096) for cookie in range(32)]
    assert [len(part) for part in split(reads)] == [32 // SLICES] * SLICES


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("flags", [0, FUA, int(CommandFlag.DF)])
@pytest.mark.parametrize("length", [0, 512, (2 << 20) - 1])
def test_a_read_with_few_fields_is_as_any_other(*, structured: bool, flags: int, length: int):
    few = SlowRead(flags, 1, 4096, length, structured)
    whole = SlowRequest(Command.READ, flags, 1, 4096, length, structured=structured)
    for name in SlowRequest.__slots__:
        assert getattr(few, name) == getattr(whole, name), name


@pytest.mark.parametrize("structured", [False, True])
def test_a_read_added_at_once_is_packed_as_one_that_is_added_after_it(*, structured: bool):
    reads = [SlowRequest(Command.READ, 0, n, n, n, structured=structured) for n in range(3)]
    at_once, after = Replies(reads), Replies(reads)

    def read_into(offset: int, data: memoryview) -> None:
        data[:] = bytes([offset]) * len(data)

    for read in reads:
        at_once.add_read(read, read_into)
        read_into(read.offset, after.room(read))
        after.add(read)
    assert at_once.data == after.data
    assert at_once.bytes_read == after.bytes_read == 3


class Log:
    """Blocking operations that log their calls, and fail at odd offsets."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def note(self, *call: object) -> None:
        self.calls.append(call)
        if isinstance(call[1], int) and call[1] % 2:
            raise OSError(errno.ENOSPC, "odd")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.note("read", offset, len(buffer))
        buffer[:] = bytes([offset % 256]) * len(buffer)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        self.note("write", offset, bytes(data), fua)

    def flush(self) -> None:
        self.note("flush", 0)

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        self.note("trim", offset, length, fua)

    def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        self.note("zero", offset, length, fua, no_hole)


def reply(error: int, cookie: int, data: bytes = b"") -> bytes:
    return struct.pack(">IIQ", 0x67446698, error, cookie) + data


def test_a_slice_is_carried_out_in_order_and_answered_in_one_piece():
    log = Log()
    no_hole = int(CommandFlag.NO_HOLE)
    replies = Slice(
        [
            SlowRequest(Command.READ, 0, 1, 2, 3),
            SlowRequest(Command.WRITE, FUA, 2, 4, 5, b"hello"),
            SlowRequest(Command.READ, 0, 3, 7, 100),  # fails
            SlowRequest(Command.FLUSH, 0, 4, 0, 0),
            SlowRequest(Command.TRIM, FUA, 5, 6, 7),
            SlowRequest(Command.WRITE_ZEROES, no_hole, 6, 8, 9),
            SlowRequest(Command.WRITE, 0, 7, 9, 2, b"ab"),  # fails
        ],
        Ranges(),
    ).run(log)
    assert log.calls == [
        ("read", 2, 3),
        ("write", 4, b"hello", True),
        ("read", 7, 100),
        ("flush", 0),
        ("trim", 6, 7, True),
        ("zero", 8, 9, False, True),
        ("write", 9, b"ab", False),
    ]
    assert bytes(replies.data) == b"".join(
        [
            reply(0, 1, b"\2\2\2"),
            reply(0, 2),
            reply(Error.ENOSPC, 3),
            reply(0, 4),
            reply(0, 5),
            reply(0, 6),
            reply(Error.ENOSPC, 7),
        ]
    )
    counted = (replies.requests, replies.bytes_read, replies.bytes_written, replies.errors)
    assert counted == (7, 3, 5, 2)
    assert [command for _, command in replies.failures] == [Command.READ, Command.WRITE]


@pytest.mark.parametrize("command", [Command.CACHE, Command.BLOCK_STATUS, Command.RESIZE, 99])
def test_a_command_without_a_call_that_blocks_changes_nothing(command: int):
    log = Log()
    replies = Slice([SlowRequest(command, 0, 1, 0, 512)], Ranges()).run(log)
    assert log.calls == []
    assert replies.errors == 1
    assert isinstance(replies.failures[0][0], ValueError)


def test_any_exception_of_a_disk_is_kept():
    class Broken(Log):
        def flush(self) -> None:
            raise ZeroDivisionError

    replies = Slice([SlowRequest(Command.FLUSH, 0, 1, 0, 0)], Ranges()).run(Broken())
    assert bytes(replies.data) == reply(Error.EIO, 1)
    ((failure, command),) = replies.failures
    assert isinstance(failure, ZeroDivisionError)
    assert command == Command.FLUSH


@pytest.mark.parametrize("command", [Command.READ, Command.WRITE])
def test_requests_that_no_worker_carried_out(command: int):
    replies = all_failed([SlowRequest(command, 0, 5, 0, 4)], error=Error.ESHUTDOWN)
    assert bytes(replies.data) == reply(Error.ESHUTDOWN, 5)
