"""The validation of requests, and the error values on the wire."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebound.nbd._protocol.transmission import (
    Session,
    error_of,
    pack_error,
    split_head,
    verdict,
)
from homebound.nbd._protocol.wire import MAX_PAYLOAD, Command, CommandFlag, Error, request_head

SIZE = 1 << 20
FUA, NO_HOLE = CommandFlag.FUA, CommandFlag.NO_HOLE
READ, WRITE, FLUSH = Command.READ, Command.WRITE, Command.FLUSH
TRIM, ZERO, CACHE = Command.TRIM, Command.WRITE_ZEROES, Command.CACHE
KNOWN = [READ, WRITE, FLUSH, TRIM, ZERO, CACHE]
ALLOWED: dict[int, int] = {**dict.fromkeys(KNOWN, FUA), ZERO: FUA | NO_HOLE}
STATUS = Command.BLOCK_STATUS
CONTEXTS = frozenset({"base:allocation"})


def judge(  # noqa: PLR0913  (the fields of a request)
    command: int,
    flags: int = 0,
    offset: int = 0,
    length: int = 0,
    *,
    size: int = SIZE,
    read_only: bool = False,
    contexts: frozenset[str] = frozenset(),
    fast_zero: bool = False,
) -> Error:
    head = request_head(command, flags)
    session = Session(size, read_only, contexts=contexts, fast_zero=fast_zero)
    return verdict(session, head, offset, length)


@pytest.mark.parametrize("command", KNOWN)
@pytest.mark.parametrize("bit", range(16))
def test_each_flag_on_each_command(command: int, bit: int):
    allowed = ALLOWED[command] >> bit & 1
    assert judge(command, 1 << bit) == (Error.OK if allowed else Error.EINVAL)


@pytest.mark.parametrize("command", [7, 8, 9, 255, 0xFFFF])
def test_unknown_commands(command: int):
    assert judge(command) == Error.EINVAL
    assert judge(command, read_only=True) == Error.EINVAL


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (READ, Error.EINVAL),
        (WRITE, Error.ENOSPC),
        (TRIM, Error.EINVAL),
        (ZERO, Error.ENOSPC),
    ],
)
class TestPastTheEnd:
    def test_by_one_byte(self, command: int, error: int):
        assert judge(command, 0, SIZE - 10, 10) == Error.OK
        assert judge(command, 0, SIZE - 10, 11) == error

    def test_far_away(self, command: int, error: int):
        assert judge(command, 0, 2**64 - 1, 1) == error
        assert judge(command, 0, 2**64 - 1, MAX_PAYLOAD) == error

    def test_a_length_of_zero(self, command: int, error: int):
        assert judge(command, 0, SIZE, 0) == Error.OK
        assert judge(command, 0, SIZE + 1, 0) == error


class TestNegotiated:
    def test_block_status_needs_a_context(self):
        assert judge(STATUS, 0, 0, 1) == Error.EINVAL
        assert judge(STATUS, 0, 0, 1, contexts=CONTEXTS) == Error.OK

    @pytest.mark.parametrize("bit", range(16))
    def test_flags_of_block_status(self, bit: int):
        fine = 1 << bit & (FUA | CommandFlag.REQ_ONE)
        result = judge(STATUS, 1 << bit, 0, 1, contexts=CONTEXTS)
        assert result == (Error.OK if fine else Error.EINVAL)

    @pytest.mark.parametrize(
        ("offset", "length"), [(0, 0), (0, SIZE + 1), (SIZE, 1), (0, 2**32 - 1)]
    )
    def test_ranges_of_block_status(self, offset: int, length: int):
        assert judge(STATUS, 0, offset, length, contexts=CONTEXTS) == Error.EINVAL

    def test_block_status_of_all(self):
        assert judge(STATUS, 0, SIZE - 1, 1, contexts=CONTEXTS) == Error.OK
        assert judge(STATUS, 0, 0, 2**32 - 1, size=2**40, contexts=CONTEXTS) == Error.OK

    def test_fast_zero(self):
        assert judge(ZERO, CommandFlag.FAST_ZERO, fast_zero=True) == Error.OK
        assert judge(WRITE, CommandFlag.FAST_ZERO, fast_zero=True) == Error.EINVAL


@pytest.mark.parametrize("command", KNOWN)
def test_read_only_forbids_changes(command: int):
    changes = command in (WRITE, TRIM, ZERO)
    assert judge(command, read_only=True) == (Error.EPERM if changes else Error.OK)


def test_payloads_have_a_largest_size():
    huge = 1 << 40
    for command in (READ, WRITE):
        assert judge(command, 0, 0, MAX_PAYLOAD, size=huge) == Error.OK
        assert judge(command, 0, 0, MAX_PAYLOAD + 1, size=huge) == Error.EINVAL
        assert judge(command, 0, 0, 0xFFFFFFFF, size=huge) == Error.EINVAL
    for command in (TRIM, ZERO):
        assert judge(command, 0, 0, 0xFFFFFFFF, size=huge) == Error.OK


@pytest.mark.parametrize(("offset", "length"), [(1, 0), (0, 1), (SIZE + 1, 0)])
def test_flush_has_no_range(offset: int, length: int):
    assert judge(FLUSH) == Error.OK
    assert judge(FLUSH, 0, offset, length) == Error.EINVAL


@given(command=st.integers(0, 0xFFFF), flags=st.integers(0, 0xFFFF))
def test_head_is_split_as_it_was_made(command: int, flags: int):
    assert split_head(request_head(command, flags)) == (command, flags)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (PermissionError(errno.EACCES, ""), Error.EPERM),
        (OSError(errno.EROFS, ""), Error.EPERM),
        (OSError(errno.ENOSPC, ""), Error.ENOSPC),
        (OSError(errno.EDQUOT, ""), Error.ENOSPC),
        (OSError(errno.EFBIG, ""), Error.ENOSPC),
        (OSError(errno.EINVAL, ""), Error.EINVAL),
        (OSError(errno.EIO, ""), Error.EIO),
        (OSError(errno.ENOTSUP, ""), Error.EIO),  # ENOTSUP is for fast zeroes only
        (OSError(errno.EOVERFLOW, ""), Error.EIO),
        (OSError("without a number"), Error.EIO),
        (ZeroDivisionError(), Error.EIO),
    ],
)
def test_exceptions_of_a_disk_have_nbd_error_values(failure: Exception, error: int):
    assert error_of(failure) == error


@given(st.integers(1, 200))
def test_no_error_value_but_those_of_the_protocol(number: int):
    assert error_of(OSError(number, "")) in set(Error) - {Error.OK}


def test_reply_carries_the_cookie_back():
    reply = pack_error(Error.EINVAL, 2**64 - 2)
    assert reply == struct.pack(">IIQ", 0x67446698, 22, 2**64 - 2)
