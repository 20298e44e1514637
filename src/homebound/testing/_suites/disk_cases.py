"""The requirements on any disk."""

from __future__ import annotations

import asyncio
import errno
import inspect
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._threads.run import run as run_here
from .cases import Case, check_all, title
from .disk_load import (
    drains,
    is_used_by_homes,
    is_used_by_threads,
    loses_nothing_when_cancelled,
    survives_its_close_under_load,
)
from .disk_model import Model, models, read, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractContextManager

    from ...block import Disk

    Operation = Callable[[], Awaitable[object]]
    Factory = Callable[[], Disk | Awaitable[Disk]]
    Failing = Callable[[Any], AbstractContextManager[object]]

_STEPS = 300  # requests by chance
_LARGEST_BLOCK = 64 << 10
_SEED = 20
_LARGE = 8 << 20  # bytes


async def describes_itself(disk: Disk) -> None:
    assert disk.size > 0, f"its size is {disk.size}"
    for name, value, least in (
        ("preferred_block", disk.preferred_block, 512),
        ("minimum_block", disk.minimum_block, 1),
    ):
        power = value >= least and not value & (value - 1)
        assert power, f"{name} is {value}: a power of two, at least {least}"
    assert disk.minimum_block <= _LARGEST_BLOCK, f"minimum_block is {disk.minimum_block}"
    assert not disk.size % disk.minimum_block, "its size is no multiple of its minimum_block"
    most = disk.maximum_transfer
    least = max(disk.preferred_block, disk.minimum_block)
    assert most is None or most >= least, f"maximum_transfer is {most}, the preferred_block {least}"


async def reads_at_every_alignment(disk: Disk) -> None:
    for model in await models(disk):
        for offset, length in model.edges():
            found = await disk.read(offset, length)
            assert len(found) == length, f"{length} bytes were asked for, {len(found)} came"
            model.compare(offset, found, f"read({offset}, {length})")


async def fills_its_buffer_and_no_more(disk: Disk) -> None:
    for model in await models(disk):
        offset, length = model.fit(model.start, 4096)
        room = bytearray(b"?" * (length + 20))
        await disk.read_into(offset, memoryview(room)[10 : 10 + length])
        model.compare(offset, room[10 : 10 + length], "read_into")
        assert room[:10] == room[-10:] == b"?" * 10, "read_into wrote outside its buffer"


async def writes_at_every_alignment(disk: Disk) -> None:
    for model in await models(disk):
        for n, (offset, length) in enumerate(model.edges()):
            data = model.pattern(length)
            await disk.write(offset, data, fua=n % 7 == 0)
            model.set(offset, data)
            at, size = model.fit(offset - 600, length + 1200)
            model.compare(at, await disk.read(at, size), f"after write({offset}, {length} bytes)")
        await model.check("after all writes")


async def takes_every_kind_of_bytes(disk: Disk) -> None:
    for model in await models(disk):
        offset, length = model.fit(model.start, 1)
        room = bytearray(model.pattern(length + 2))
        for data in (
            bytes(room[1:-1]),
            room[1:-1],
            memoryview(room)[1:-1],
            memoryview(bytes(length)),
            memoryview(model.pattern(length)).cast("b"),
        ):
            await disk.write(offset, data)
            model.set(offset, bytes(data))
            if isinstance(data, bytearray):
                data[:] = bytes(length)  # ours again
            await model.check(f"after a write of {type(data).__name__}")


async def _fill_around(disk: Disk, model: Model, offset: int, length: int) -> tuple[int, int]:
    """Write to a range and beyond both its ends; that larger range."""
    around = model.fit(offset - 600, length + 1200)
    data = model.pattern(around[1])
    await disk.write(around[0], data)
    model.set(around[0], data)
    return around


async def zeroes_at_every_alignment(disk: Disk) -> None:
    for model in await models(disk):
        for n, (offset, length) in enumerate(model.edges()):
            at, size = await _fill_around(disk, model, offset, length)
            await disk.write_zeroes(offset, length, fua=n % 7 == 0, no_hole=n % 2 == 0)
            model.set(offset, bytes(length))
            what = f"after write_zeroes({offset}, {length})"
            model.compare(at, await disk.read(at, size), what)
        await model.check("after all write_zeroes")


async def trims_no_more_than_it_is_told(disk: Disk) -> None:
    for model in await models(disk):
        for n, (offset, length) in enumerate(model.edges()):
            at, size = await _fill_around(disk, model, offset, length)
            await disk.trim(offset, length, fua=n % 7 == 0)
            model.set(offset, await read(disk, offset, length))  # whatever it is, it stays
            model.compare(at, await disk.read(at, size), f"after trim({offset}, {length})")
        await model.check("after all trims")


async def zeroes_quickly_or_not_at_all(disk: Disk) -> None:
    for model in await models(disk):
        for n, (offset, length) in enumerate(model.edges()):
            at, size = await _fill_around(disk, model, offset, length)
            try:
                await disk.fast_zeroes(offset, length, no_hole=n % 2 == 0)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise AssertionError(f"fast_zeroes raised {error!r}") from error
            else:
                assert disk.can_fast_zero, "fast_zeroes is done, and can_fast_zero is False"
                model.set(offset, bytes(length))
            what = f"after fast_zeroes({offset}, {length})"
            model.compare(at, await disk.read(at, size), what)
        await model.check("after fast_zeroes")


async def takes_large_requests(disk: Disk) -> None:
    """Transfer more in one request than the other cases do."""
    model = Model(disk, 0, min(disk.size, _LARGE))
    offset, length = model.fit(disk.minimum_block, _LARGE)
    data: bytes | bytearray = model.pattern(length)
    if disk.read_only:
        data = await read(disk, offset, length, _LARGEST_BLOCK)
    else:
        await disk.write(offset, data)
    found = await disk.read(offset, length)
    assert len(found) == length, f"{length} bytes were asked for, {len(found)} came"
    assert found == data, f"read({offset}, {length}) is not what is there"


async def attempts_what_it_can(disk: Disk) -> None:
    for model in await models(disk):
        for offset, length in model.edges():
            buffer = memoryview(bytearray(length))
            if disk.try_read_into(offset, buffer):
                model.compare(offset, buffer, f"try_read_into({offset}, {length} bytes)")
            data = model.pattern(length)
            if not disk.read_only:
                if not disk.try_write(offset, data):
                    await disk.write(offset, data)
                model.set(offset, data)
        await model.check("after attempts")


async def tells_holes_from_data(disk: Disk) -> None:
    for model in await models(disk):
        if not disk.read_only:
            for offset, length in model.edges()[::5]:
                await disk.write_zeroes(offset, length)
                model.set(offset, bytes(length))
            for offset in range(model.start, model.stop - 9000, 50_000):
                at, length = model.fit(offset, 9000)
                model.set(at, data := model.pattern(length))
                await disk.write(at, data)
        for offset, length in model.edges():
            await _check_status(disk, model, offset, length)


async def _check_status(disk: Disk, model: Model, offset: int, length: int) -> None:
    what = f"block_status({offset}, {length})"
    if disk.try_hole(offset, length):
        assert not any(model.part(offset, length)), f"try_hole({offset}, {length}) takes data"
    extents = await disk.block_status(offset, length)
    assert sum(each.length for each in extents) == length, f"{what} does not cover the range"
    for extent in extents:
        assert extent.length > 0, f"{what} has an empty extent"
        if extent.zero:
            assert not any(model.part(offset, extent.length)), f"{what} takes data for zeroes"
        offset += extent.length


async def does_what_a_bytearray_does(disk: Disk) -> None:
    rng = random.Random(_SEED)  # noqa: S311  (no secret)
    for model in await models(disk):
        for _ in range(_STEPS):
            await _step(disk, model, rng)
        await model.check(f"after {_STEPS} requests")


async def _step(disk: Disk, model: Model, rng: random.Random) -> None:
    offset, length = model.some(rng)
    fua = rng.random() < 0.1  # noqa: PLR2004
    kinds = ["read", "cache", "flush", "status"]
    kind = rng.choice(kinds if disk.read_only else [*kinds, "write", "write", "zero", "trim"])
    match kind:
        case "write":
            data = model.pattern(length)
            await disk.write(offset, data, fua=fua)
            model.set(offset, data)
        case "zero":
            await disk.write_zeroes(offset, length, fua=fua, no_hole=rng.random() < 0.5)  # noqa: PLR2004
            model.set(offset, bytes(length))
        case "trim":
            await disk.trim(offset, length, fua=fua)
            model.set(offset, await read(disk, offset, length))
        case "flush":
            await disk.flush()
        case "cache":
            await disk.cache(offset, length)
        case "status":
            await _check_status(disk, model, offset, length)
        case "read":
            model.compare(offset, await disk.read(offset, length), f"read({offset}, {length})")


async def refuses_what_is_outside(disk: Disk) -> None:
    size, one = disk.size, disk.minimum_block
    for model in await models(disk):
        for offset, length in ((size, one), (size - one, 2 * one), (1 << 62, one), (-one, one)):
            where = f"({offset}, {length})"
            operations: list[tuple[str, Operation]] = [
                ("read", partial(disk.read, offset, length)),
                ("block_status", partial(disk.block_status, offset, length)),
                ("cache", partial(disk.cache, offset, length)),
            ]
            if not disk.read_only:
                operations += _changes(disk, offset, length)
            for what, operation in operations:
                await refused(operation, f"{what}{where}", errno.EINVAL, errno.ENOSPC)
        assert not await disk.read(size, 0), "read at the end, of nothing"
        await model.check("after what was refused")


def _changes(disk: Disk, offset: int, length: int) -> list[tuple[str, Operation]]:
    return [
        ("write", partial(disk.write, offset, b"x" * length)),
        ("write_zeroes", partial(disk.write_zeroes, offset, length)),
        ("trim", partial(disk.trim, offset, length)),
    ]


async def refuses_changes_if_read_only(disk: Disk) -> None:
    if not disk.read_only:
        return
    for model in await models(disk):
        offset, length = model.fit(model.start, 1)
        for what, operation in _changes(disk, offset, length):
            await refused(operation, what, errno.EROFS, errno.EPERM, errno.EACCES)
        operation = partial(disk.fast_zeroes, offset, length)
        numbers = (errno.EROFS, errno.EPERM, errno.EACCES, errno.ENOTSUP)
        await refused(operation, "fast_zeroes", *numbers)
        await disk.flush()
        await model.check("after changes of a read-only disk")


async def says_that_it_is_closed(disk: Disk) -> None:
    disk.close()
    disk.close()
    one = disk.minimum_block
    operations: list[tuple[str, Operation]] = [
        ("read", partial(disk.read, 0, one)),
        ("flush", disk.flush),
        ("block_status", partial(disk.block_status, 0, one)),
        *_changes(disk, 0, one),
    ]
    for what, operation in operations:
        await refused(operation, f"{what} of a closed disk")


async def serves_many_at_once(disk: Disk) -> None:
    for model in await models(disk):
        step, _ = model.fit(5000, 0)  # neighbours share a block
        pieces = range(model.start, model.stop - 2 * step, step)
        ranges = [model.fit(offset + 77, step) for offset in pieces]
        if not disk.read_only:
            datas = [model.pattern(length) for _, length in ranges]
            for (offset, _), data in zip(ranges, datas, strict=True):
                model.set(offset, data)
            writes = [disk.write(at[0], data) for at, data in zip(ranges, datas, strict=True)]
            await asyncio.gather(*writes, disk.flush())
        found = await asyncio.gather(*(disk.read(*each) for each in ranges))
        for (offset, _), read_there in zip(ranges, found, strict=True):
            model.compare(offset, read_there, "one of many reads at once")
        await model.check("after many requests at once")


async def survives_faults(disk: Disk, failing: Failing) -> None:
    """Fail operations: they raise OSError, and the range is old, new, or a part of each."""
    for model in await models(disk):
        offset, length = model.fit(model.start + 5000, 20_000)
        old, new = bytes(model.part(offset, length)), model.pattern(length)
        with failing(disk):
            for what, operation in (
                ("read", partial(disk.read, offset, length)),
                ("write", partial(disk.write, offset, new)),
                ("flush", disk.flush),
            ):
                await _may_fail(operation, what)
        found = await read(disk, offset, length)
        odd = [n for n in range(length) if found[n] not in (old[n], new[n])]
        assert not odd, f"after a fault {len(odd)} bytes are neither old nor new"
        model.set(offset, found)
        await model.check("after a fault")
        await disk.write(offset, new)
        model.set(offset, new)
        await model.check("after a fault and another write")


async def _may_fail(operation: Operation, what: str) -> None:
    try:
        await operation()
    except OSError:
        return
    except Exception as error:
        raise AssertionError(f"{what}: with a fault it raised {error!r}, no OSError") from error


READS = [
    describes_itself,
    reads_at_every_alignment,
    fills_its_buffer_and_no_more,
    takes_large_requests,
    attempts_what_it_can,
    tells_holes_from_data,
    does_what_a_bytearray_does,
    refuses_what_is_outside,
    refuses_changes_if_read_only,
    says_that_it_is_closed,
    serves_many_at_once,
]
WRITES = [
    writes_at_every_alignment,
    takes_every_kind_of_bytes,
    zeroes_at_every_alignment,
    trims_no_more_than_it_is_told,
    zeroes_quickly_or_not_at_all,
    loses_nothing_when_cancelled,
]
LOADS = [
    drains,
    is_used_by_threads,
    is_used_by_homes,
    survives_its_close_under_load,
]


async def _check(case: Any, factory: Factory, patience: float, *, changes: bool) -> None:
    made = factory()
    disk = await made if inspect.isawaitable(made) else made
    try:
        async with asyncio.timeout(patience):
            if not (changes and disk.read_only):
                await case(disk)
    except TimeoutError:
        raise AssertionError(f"it has not ended after {patience} s") from None
    finally:
        disk.close()


def disk_cases(*, failing: Failing | None = None, patience: float = 60.0) -> list[Case]:
    """Return the requirements on a disk as cases: pairs of a name and `check(factory)`.

    See `check_disk` for the options, `lock_cases` for the use.

    >>> from homebound.testing import disk_cases
    >>> [case.name for case in disk_cases()][0]
    'describes itself'

    Called from: any thread.
    """

    def in_a_home(case: Any, changes: bool, factory: Factory) -> None:  # noqa: FBT001
        run_here(_check(case, factory, patience, changes=changes))

    cases = [Case(title(each), partial(in_a_home, each, False)) for each in READS + LOADS]
    cases += [Case(title(each), partial(in_a_home, each, True)) for each in WRITES]
    if failing is not None:
        case = partial(survives_faults, failing=failing)
        cases.append(Case(title(survives_faults), partial(in_a_home, case, True)))
    return cases


def check_disk(
    factory: Factory,
    *,
    failing: Failing | None = None,
    patience: float = 60.0,
    skip: Iterable[str] = (),
) -> None:
    """Check that what `factory()` makes is a disk: it holds what a bytearray would.

    Each case asks `factory` for a new disk, with any contents, in a homebound task; it may be a
    coroutine function. What is read, written, zeroed and trimmed is compared with a model, at all
    alignments, of the whole disk or of both ends of a large one; 100,000 bytes and an odd size find
    most. Then requests are cancelled at each of their awaits, come from two threads and two homes
    at once, and meet a drained section and a close. A read-only disk is checked as that.

    `failing(disk)` is a context manager in which the disk's requests fail, by a `FaultDisk` below
    it for instance. `patience` is how long, in seconds, a case may take. `skip` has names of cases,
    see `disk_cases`. Raises AssertionError naming the case that fails, an ExceptionGroup if there
    are more, ValueError for names that are no case's.

    >>> from homebound.block import MemoryDisk
    >>> from homebound.testing import check_disk
    >>> check_disk(lambda: MemoryDisk(100_001))

    Called from: any thread.
    """
    check_all("check_disk", disk_cases(failing=failing, patience=patience), factory, skip)
