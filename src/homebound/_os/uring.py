"""io_uring through ctypes: a ring of requests to the kernel, and of their results.

The memory that the ring shares with the kernel is read and written without atomic instructions, so
its orders are argued here:

    requests   are read by the kernel inside our own `io_uring_enter`, so in the order of the
               program; no kernel thread polls for them
    results    are written by the kernel at any time: first the entry, then the tail. We load the
               tail, then the entries before it. x86 loads in order. On arm64 a branch on the tail
               and a system call come between: the branch depends on the first load, and the entry
               into the kernel synchronizes the context, so no later load begins before it
    the head   is stored after the entries were loaded. The kernel reuses an entry after as many
               more results as the ring has, whose requests are made by later system calls

One thread at a time may use a ring, and only the one that made it may submit. Results may be read
by any thread.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import platform
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

READ, WRITE, SYNC = 22, 23, 3  # IORING_OP_READ, WRITE, FSYNC
_OPERATIONS = (READ, WRITE, SYNC)
_IN_THREAD = 1 << 4  # IOSQE_ASYNC: do not first try in the caller's thread
_DATA_ONLY = 1  # IORING_FSYNC_DATASYNC

_SETUP, _ENTER, _REGISTER = 425, 426, 427
# The calls have these numbers there; elsewhere they may have others, and pointers another size.
_MACHINES = {"x86_64", "aarch64"}
_IS_ORDERED = platform.machine() == "x86_64"
# IORING_SETUP_COOP_TASKRUN: a thread that is running is not interrupted for a result, and one that
# sleeps is woken; _SINGLE_ISSUER: as said above.
_SETUP_FLAGS = 1 << 8 | 1 << 12
_SINGLE_MMAP = 1  # a feature: one mapping has both rings
_SHARED = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
_OFFSET_OF_REQUESTS = 0x10000000
_GET_EVENTS = 1
_REGISTER_PROBE, _REGISTER_WORKERS = 8, 19
_SUPPORTED = 1  # a flag of a probe's entry

_PARAMETERS = struct.Struct("=10I 10I 10I")  # of setup, and the offsets of the two rings
_REQUEST = struct.Struct("=BBHiQQIIQ24x")
_RESULT = struct.Struct("=QiI")
_PROBED = 64  # entries that a probe has room for
_WRAP = 0xFFFFFFFF


@functools.cache
def _system_call() -> Callable[..., int]:
    """Return the C library's `syscall`, loaded at its first use."""
    import ctypes  # noqa: PLC0415  (see above)

    call: Any = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    long, pointer = ctypes.c_long, ctypes.c_void_p
    call.argtypes = (long, long, long, long, long, pointer, ctypes.c_size_t)
    return call  # type: ignore[no-any-return]


def _call(number: int, fd: int, *arguments: int, third: int = 0) -> int:
    """Make a system call; raise OSError if it fails."""
    import ctypes  # noqa: PLC0415  (loaded by _system_call)

    first, second, *rest = (*arguments, 0, 0)[:3]
    done = _system_call()(number, fd, first, second, third or rest[0], None, 0)
    if done < 0:
        failure = ctypes.get_errno()
        raise OSError(failure, os.strerror(failure))
    return done


def address_of(buffer: memoryview | bytearray) -> tuple[int, object]:
    """Return where a writable buffer begins, and an object that keeps it there while it lives."""
    import ctypes  # noqa: PLC0415  (loaded by _system_call)

    pin = ctypes.c_char.from_buffer(buffer)
    return ctypes.addressof(pin), pin


class Ring:
    """A ring for `entries` requests at a time, a power of two, with at most `workers` threads.

    The threads are the kernel's; it makes them for requests that block. Raises OSError or
    ImportError where there is no such ring.
    """

    def __init__(self, entries: int, workers: int) -> None:
        if sys.platform != "linux" or platform.machine() not in _MACHINES:
            raise OSError(errno.ENOSYS, "no io_uring is known here")
        self.fd = -1
        self._maps: list[mmap.mmap] = []
        parameters = bytearray(_PARAMETERS.size)
        struct.pack_into("=I", parameters, 8, _SETUP_FLAGS)
        address, _pin = _address_in(parameters)
        self.fd = _call(_SETUP, entries, address)
        try:
            self._set_up(_PARAMETERS.unpack(parameters), workers)
        except BaseException:
            self.close()
            raise

    def _set_up(self, parameters: tuple[int, ...], workers: int) -> None:
        entries, results, _, _, _, features, *_ = parameters
        of_requests, of_results = parameters[10:20], parameters[20:30]
        if not features & _SINGLE_MMAP:
            raise OSError(errno.ENOSYS, "this kernel's io_uring is too old")
        _probe(self.fd)
        _limit_workers(self.fd, workers)
        array, entries_of_results = of_requests[6], of_results[5]
        size = max(array + 4 * entries, entries_of_results + _RESULT.size * results)
        self._shared = self._map(size, 0)
        self._requests = self._map(entries * _REQUEST.size, _OFFSET_OF_REQUESTS)
        # As numbers of 32 bits: each is loaded and stored with one instruction.
        self._words = words = memoryview(self._shared).cast("I")
        for number in range(entries):  # each place in the ring has the request of its number
            words[array // 4 + number] = number
        self._taken_at, self._tail_at = of_requests[0] // 4, of_requests[1] // 4
        self._mask = entries - 1
        self._head_at, self._done_at = of_results[0] // 4, of_results[1] // 4
        self._results_at, self._results_mask = entries_of_results, results - 1
        self._tail = words[self._tail_at]
        self._enter = functools.partial(_system_call(), _ENTER, self.fd)

    def _map(self, size: int, offset: int) -> mmap.mmap:
        access = mmap.PROT_READ | mmap.PROT_WRITE
        if sys.version_info >= (3, 13):  # without a copy of the descriptor
            made = mmap.mmap(self.fd, size, _SHARED, access, offset=offset, trackfd=False)
        else:
            made = mmap.mmap(self.fd, size, _SHARED, access, offset=offset)
        self._maps.append(made)
        return made

    def queue(  # noqa: PLR0913, PLR0917  (the fields of a request)
        self, operation: int, fd: int, offset: int, address: int, length: int, name: int
    ) -> None:
        """Add a request for `submit`; its result will have this name, a number of 64 bits.

        The memory at `address` must stay there until then. At most `entries` may be in flight. If
        it raises, nothing was added: no call follows the last line, after which a signal handler
        could raise.
        """
        at = (self._tail & self._mask) * _REQUEST.size
        # A read of a file that supports it waits without a thread, so it is tried at once.
        flags = 0 if operation == READ else _IN_THREAD
        how = _DATA_ONLY if operation == SYNC else 0
        _REQUEST.pack_into(
            self._requests, at, operation, flags, 0, fd, offset, address, length, how, name
        )
        self._tail = self._words[self._tail_at] = (self._tail + 1) & _WRAP

    @property
    def queued(self) -> int:
        """How many requests are queued and not submitted.

        The kernel's own count of what it took, not one of ours: a signal handler may raise after
        the system call, before its result is looked at. A request that counted as queued then
        would be taken back while the kernel carries it out, and an old one made a second time.
        """
        return (self._tail - self._words[self._taken_at]) & _WRAP

    def submit(self) -> int:
        """Submit what is queued; return how many of the last ones the kernel did not take."""
        while True:
            queued = self.queued
            if not queued:
                return 0
            taken = self._enter(queued, 0, 0, None, 0)
            if taken == 0 or (taken < 0 and _last_errno() != errno.EINTR):
                break
        refused = self.queued
        self._tail = self._words[self._tail_at] = (self._tail - refused) & _WRAP
        return refused

    def results(self, found: deque[tuple[int, int]], most: int = _WRAP) -> None:
        """Take the results that are there: names, and what the system call would have returned.

        A failure is the negative number of the error. If an exception comes in between, the next
        call gives again what this one gave.
        """
        words, mask = self._words, self._results_mask
        head, tail = words[self._head_at], words[self._done_at]
        if head == tail:
            return
        tail = (head + min((tail - head) & _WRAP, most)) & _WRAP
        if not _IS_ORDERED:
            self._enter(0, 0, 0, None, 0)
        while head != tail:
            at = self._results_at + (head & mask) * _RESULT.size
            name, result, _ = _RESULT.unpack_from(self._shared, at)
            found.append((name, result))
            head = (head + 1) & _WRAP
        words[self._head_at] = head

    def wait(self) -> None:
        """Sleep until there is a result, or a signal comes."""
        self._enter(0, 1, _GET_EVENTS, None, 0)

    def close(self) -> None:
        """Close it; nothing may be in flight, unless this is a forked process. Again: no effect."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        if len(self._maps) == 2:  # noqa: PLR2004  (it was set up)
            self._words.release()
        try:
            for each in self._maps:
                each.close()
        except BufferError:
            pass  # a thread that is not in this forked process was reading it
        finally:
            os.close(fd)


def _last_errno() -> int:
    import ctypes  # noqa: PLC0415  (loaded by _system_call)

    return ctypes.get_errno()


def _address_in(memory: bytearray) -> tuple[int, object]:
    _system_call()
    return address_of(memory)


def _probe(fd: int) -> None:
    """Raise OSError unless the kernel has the operations."""
    probe = bytearray(16 + 8 * _PROBED)
    address, _pin = address_of(probe)
    _call(_REGISTER, fd, _REGISTER_PROBE, address, third=_PROBED)
    for operation in _OPERATIONS:
        (flags,) = struct.unpack_from("=H", probe, 16 + 8 * operation + 2)
        if not flags & _SUPPORTED:
            raise OSError(errno.ENOSYS, f"this kernel's io_uring has no operation {operation}")


def _limit_workers(fd: int, workers: int) -> None:
    """Set how many threads of the kernel's may block for this thread's requests."""
    limits = bytearray(struct.pack("=2I", workers, 0))  # for files and devices; 0: as it is
    address, _pin = address_of(limits)
    _call(_REGISTER, fd, _REGISTER_WORKERS, address, third=2)
