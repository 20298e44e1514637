"""The ring itself: requests in, results out, and what becomes of it where there is none."""

from __future__ import annotations

import errno
import os
import platform
import select
import sys
from collections import deque
from typing import TYPE_CHECKING

import pytest

from homebound._os import uring
from homebound._os.uring import READ, SYNC, WRITE, Ring, address_of
from homebound.testing import no_leaks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENTRIES = 4


@pytest.fixture
def ring() -> Iterator[Ring]:
    try:
        made = Ring(ENTRIES, 8)
    except OSError as error:
        pytest.skip(f"no io_uring here: {error}")
    yield made
    made.close()


def results(ring: Ring, count: int) -> dict[int, int]:
    found: deque[tuple[int, int]] = deque()
    while len(found) < count:
        ring.wait()
        ring.results(found)
    assert len(found) == count
    return dict(found)


def test_it_writes_syncs_and_reads(ring: Ring, tmp_path: Path):
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        data = bytearray(b"hello world")
        address, pin = address_of(data)
        ring.queue(WRITE, file.fileno(), 3, address, len(data), 1)
        assert ring.submit() == 0
        assert results(ring, 1) == {1: len(data)}
        ring.queue(SYNC, file.fileno(), 0, 0, 0, 2)
        ring.queue(SYNC, file.fileno(), 3, 0, 5, 3)
        back = bytearray(20)
        into, pin_back = address_of(back)
        ring.queue(READ, file.fileno(), 1, into, len(back), 2**63)
        assert ring.submit() == 0
        assert results(ring, 3) == {2: 0, 3: 0, 2**63: 13}
        assert back == b"\0\0hello world" + bytes(7)
        del pin, pin_back


def test_failures_are_results(ring: Ring):
    data = bytearray(1)
    address, pin = address_of(data)
    ring.queue(READ, 2**31 - 1, 0, address, 1, 7)
    ring.submit()
    assert results(ring, 1) == {7: -errno.EBADF}
    del pin


def test_places_are_used_again(ring: Ring, tmp_path: Path):
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        for turn in range(50):
            for n in range(ENTRIES):
                ring.queue(SYNC, file.fileno(), 0, 0, 0, turn * ENTRIES + n)
            assert ring.submit() == 0
            found = results(ring, ENTRIES)
            assert found == dict.fromkeys(range(turn * ENTRIES, (turn + 1) * ENTRIES), 0)


def test_as_many_results_as_asked_for_are_taken_and_the_rest_stays(ring: Ring):
    poll = select.poll()
    poll.register(ring.fd, select.POLLIN)
    for name in range(3):
        ring.queue(SYNC, -1, 0, 0, 0, name)
    ring.submit()
    found: deque[tuple[int, int]] = deque()
    while len(found) < 3:
        assert poll.poll(20_000) == [(ring.fd, select.POLLIN)]
        before = len(found)
        ring.results(found, 1)
        assert len(found) == before + 1
    assert sorted(found) == [(name, -errno.EBADF) for name in range(3)]
    assert poll.poll(0) == []


def test_its_descriptor_is_readable_while_there_are_results(ring: Ring):
    read_end, write_end = os.pipe()
    poll = select.poll()
    poll.register(ring.fd, select.POLLIN)
    data = bytearray(5)
    address, pin = address_of(data)
    ring.queue(READ, read_end, 2**64 - 1, address, 5, 1)
    ring.submit()
    assert poll.poll(0) == []
    os.write(write_end, b"input")
    assert poll.poll(20_000) == [(ring.fd, select.POLLIN)]
    found: deque[tuple[int, int]] = deque()
    ring.results(found)
    assert list(found) == [(1, 5)]
    assert data == b"input"
    assert poll.poll(0) == []
    os.close(read_end)
    os.close(write_end)
    del pin


def test_what_the_kernel_does_not_take_is_counted(ring: Ring, monkeypatch: pytest.MonkeyPatch):
    """And its place is free again."""
    real = ring._enter
    monkeypatch.setattr(ring, "_enter", lambda *_: -1)
    monkeypatch.setattr(uring, "_last_errno", lambda: errno.EBUSY)
    for name in range(3):
        ring.queue(SYNC, -1, 0, 0, 0, name)
    assert ring.submit() == 3
    monkeypatch.setattr(ring, "_enter", real)
    ring.queue(SYNC, -1, 0, 0, 0, 9)
    assert ring.submit() == 0
    assert results(ring, 1) == {9: -errno.EBADF}


def test_an_exception_just_after_the_submission(ring: Ring, monkeypatch: pytest.MonkeyPatch):
    """What the kernel has taken is neither counted as refused nor taken again."""
    real = ring._enter

    def interrupted(*arguments: object) -> int:
        real(*arguments)
        raise KeyboardInterrupt

    for name in range(3):
        ring.queue(SYNC, -1, 0, 0, 0, name)
    with monkeypatch.context() as patched:
        patched.setattr(ring, "_enter", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ring.submit()
    assert ring.submit() == 0
    assert results(ring, 3) == dict.fromkeys(range(3), -errno.EBADF)
    ring.queue(SYNC, -1, 0, 0, 0, 3)
    assert ring.submit() == 0
    assert results(ring, 1) == {3: -errno.EBADF}


def test_a_result_taken_when_an_exception_comes_is_given_again(ring: Ring):
    class Interrupted(deque[tuple[int, int]]):
        def append(self, result: tuple[int, int]) -> None:
            if len(self):
                raise KeyboardInterrupt
            super().append(result)

    ring.queue(SYNC, -1, 0, 0, 0, 1)
    ring.queue(SYNC, -1, 0, 0, 0, 2)
    ring.submit()
    ring._enter(0, 2, 1, None, 0)
    with pytest.raises(KeyboardInterrupt):
        ring.results(Interrupted())
    assert results(ring, 2) == {1: -errno.EBADF, 2: -errno.EBADF}


def test_it_leaves_no_descriptor(ring: Ring):
    ring.close()
    ring.close()
    assert ring.fd == -1


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.ENOMEM, errno.EINVAL])
def test_refused(monkeypatch: pytest.MonkeyPatch, number: int):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")

    def refuse(*_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(uring, "_call", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        Ring(ENTRIES, 8)
    assert caught.value.errno == number


def test_an_operation_that_the_kernel_does_not_have(ring: Ring, monkeypatch: pytest.MonkeyPatch):
    del ring
    monkeypatch.setattr(uring, "_OPERATIONS", (READ, 250))
    monkeypatch.setattr(uring, "_PROBED", 256)
    with no_leaks(), pytest.raises(OSError, match="has no operation 250"):
        Ring(ENTRIES, 8)


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "mips64")])
def test_systems_without_it(monkeypatch: pytest.MonkeyPatch, system: str, machine: str):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(OSError, match="no io_uring is known here"):
        Ring(ENTRIES, 8)


def test_results_where_loads_are_not_ordered(
    ring: Ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(uring, "_IS_ORDERED", False)
    test_places_are_used_again(ring, tmp_path)
