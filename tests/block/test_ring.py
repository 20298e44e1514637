"""Disks whose requests wait in a home's io_uring, or in workers where there is none."""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import os
import random
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import (
    DiskClosed,
    DiskError,
    DiskReadOnly,
    FileDisk,
    OutOfRange,
    _home_ring,
    _ring_steps,
)
from homebound.block._home_ring import HomeRing, ring_here
from homebound.testing import check_disk, no_leaks, settle

from .programs import run_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

SIZE = 1 << 20
CONTENT = random.Random(1).randbytes(SIZE)
ANYWHERE = 2**64 - 1  # the offset in a pipe


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a home make its ring for the first request that waits."""
    monkeypatch.setattr(_home_ring, "FEW", 0)


@pytest.fixture
def ring_works() -> None:
    async def main() -> bool:
        return ring_here() is not None

    if not homebound.run(main()):
        pytest.skip("no io_uring here")


@pytest.fixture(params=["ring", "workers"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, ring_works: None) -> str:
    """How requests wait; each test that asks for it runs in both ways."""
    del ring_works
    if request.param == "workers":
        monkeypatch.setenv("HOMEBOUND_IO_URING", "0")
    return str(request.param)


@pytest.fixture
def image() -> Iterator[Path]:
    """An image on a file system with storage, if there is one."""
    path = Path(f"/var/tmp/homebound-ring-{os.getpid()}-{random.randrange(2**32)}")
    path.write_bytes(CONTENT)
    yield path
    path.unlink()


def forget(disk: FileDisk) -> None:
    """Have the page cache forget the image."""
    os.fdatasync(disk.blocking.fd)
    os.posix_fadvise(disk.blocking.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def check_way(way: str, disk: FileDisk) -> None:
    used = bool(getattr(homebound.current_context(), "disk_ring", None))
    assert used is (way == "ring" and bool(disk.blocking.nowait))


class TestOperations:
    def test_data(self, image: Path, way: str):
        model = bytearray(image.read_bytes())
        rng = random.Random(2)

        async def change(disk: FileDisk, place: int) -> None:
            for _ in range(5):
                offset = place * (SIZE // 16) + rng.randrange(SIZE // 32)
                data = rng.randbytes(rng.choice((1, 512, 4096, 10_000)))
                model[offset : offset + len(data)] = data
                kind = rng.choice((bytes, bytearray, memoryview))
                await disk.write(offset, kind(data), fua=rng.random() < 0.5)
                if rng.random() < 0.3:
                    await disk.flush()
                if rng.random() < 0.5:
                    forget(disk)
                assert await disk.read(offset, len(data)) == data

        async def main() -> None:
            with FileDisk(image) as disk:
                await asyncio.gather(*[change(disk, place) for place in range(16)])
                forget(disk)
                assert await disk.read(0, SIZE) == model
                check_way(way, disk)

        homebound.run(main())
        assert image.read_bytes() == model

    def test_a_large_one_goes_to_a_worker(self, image: Path, way: str):
        with image.open("ab") as file:
            file.write(bytes(2 * SIZE))

        async def main() -> None:
            with FileDisk(image) as disk:
                forget(disk)
                assert len(await disk.read(0, 3 * SIZE)) == 3 * SIZE
                await disk.write(1, bytes(2 * SIZE), fua=True)
                await disk.flush()
                check_way(way, disk)

        homebound.run(main())

    def test_what_is_refused(self, image: Path, way: str):
        async def main() -> None:
            with FileDisk(image, read_only=True) as disk:
                with pytest.raises(DiskReadOnly):
                    await disk.write(0, b"x", fua=True)
                with pytest.raises(OutOfRange):
                    await disk.read(SIZE - 1, 2)
                await disk.flush()
            for late in (disk.read(0, 1), disk.flush()):
                with pytest.raises(DiskClosed):
                    await late
            check_way(way, disk)

        homebound.run(main())

    def test_an_image_that_became_shorter(self, image: Path, way: str):
        async def main() -> None:
            with FileDisk(image) as disk:
                os.truncate(image, 5000)
                with pytest.raises(DiskError, match="has become shorter: nothing is left at 5000"):
                    await disk.read(4096, 4096)
                check_way(way, disk)

        homebound.run(main())

    def test_a_target_that_is_not_contiguous(self, image: Path, way: str):
        async def main() -> None:
            with FileDisk(image) as disk:
                fill = inspect.unwrap(
                    FileDisk.read_into
                )  # what refuses the target before is around it
                with pytest.raises((BufferError, ValueError)):
                    await fill(disk, 0, memoryview(bytearray(20))[::2])
                check_way(way, disk)
                release = disk.blocking.hold()
                assert release is not None
                release()

        homebound.run(main())

    @pytest.mark.parametrize("fua", [False, True])
    def test_a_limit_of_the_system(self, image: Path, way: str, *, fua: bool):
        run_program(
            """
            import errno, resource, sys
            import homebound
            from homebound.block import FileDisk, _home_ring

            _home_ring.FEW = 0

            async def main(image, fua):
                with FileDisk(image) as disk:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, -1))
                    await disk.write(4096, bytes(4096), fua=fua)
                    try:
                        await disk.write(8192, bytes(4096), fua=fua)
                    except OSError as error:
                        assert error.errno == errno.EFBIG, error
                    else:
                        raise AssertionError
                    await disk.flush()  # nothing that was written is lost

            homebound.run(main(sys.argv[1], sys.argv[2] == "True"))
            """,
            image,
            fua,
        )
        del way


def test_conformance(way: str):
    del way
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="homebound-") as directory:

        def make() -> FileDisk:
            path = Path(directory, f"image{len(os.listdir(directory))}")  # noqa: PTH208
            path.write_bytes(CONTENT)
            disk = FileDisk(path)
            forget(disk)
            return disk

        check_disk(make)


class TestErrors:
    def test_a_failed_sync_is_reported_for_ever(self, image: Path, ring_works: None):
        del ring_works

        async def main() -> None:
            with FileDisk(image) as disk:
                steps = _ring_steps.flush(disk.blocking)
                next(steps)
                assert disk.blocking.flushing
                with pytest.raises(OSError, match="medium error"):
                    steps.throw(OSError(errno.EIO, "medium error"))
                assert not disk.blocking.flushing
                for operation in (disk.flush(), disk.trim(0, 512, fua=True)):
                    with pytest.raises(DiskError, match=r"failed before, .*medium"):
                        await operation

        homebound.run(main())

    def test_so_is_that_of_a_fua_write(self, image: Path):
        async def main() -> None:
            with FileDisk(image) as disk:
                disk.try_write(100, b"x")  # it finds out that there are no attempts, only tries
                steps = _ring_steps.write(disk, 0, b"data", fua=True)
                step = next(steps)
                assert step[2:4] == (0, 4)  # only its range is synced, once it is written
                assert os.pread(disk.blocking.fd, 4, 0) == b"data"
                with pytest.raises(OSError, match="medium error"):
                    steps.throw(OSError(errno.EIO, "medium error"))
                with pytest.raises(DiskError, match="failed before"):
                    await disk.flush()

        homebound.run(main())

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("syncs", [True, False])
    def test_a_workers_fua_write_tells_its_sync_from_itself(
        self, image: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, syncs: bool
    ):
        real = os.pwritev

        def pwritev(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
            if flags or not syncs:
                raise OSError(number, "write-back failed" if syncs else "no room")
            return real(fd, buffers, offset)

        with FileDisk(image) as disk:
            disk.blocking.volatile = False
            monkeypatch.setattr(os, "pwritev", pwritev)
            with pytest.raises(OSError, match=r"write-back failed|no room"):
                disk.blocking.write(0, b"data", fua=True)
            if syncs or number == errno.EIO:
                with pytest.raises(DiskError, match="failed before"):
                    disk.blocking.flush()
            else:
                disk.blocking.flush()

    @pytest.mark.parametrize("kind", ["flush", "fua"])
    @pytest.mark.parametrize("other", ["flush", "fua"])
    def test_one_that_ends_well_beside_a_failed_one_fails(self, image: Path, kind: str, other: str):
        """The kernel reports what both wait for to one of them."""

        def begin(kind: str) -> Any:
            if kind == "flush":
                steps = _ring_steps.flush(disk.blocking)
            else:
                steps = _ring_steps.write(disk, 0, b"data", fua=True)
            next(steps)
            return steps

        with FileDisk(image) as disk:
            disk.blocking.volatile = False
            disk.try_write(100, b"x")  # it finds out that there are no attempts, only tries
            one, two = begin(kind), begin(other)
            with pytest.raises(OSError, match="medium error"):
                one.throw(OSError(errno.EIO, "medium error"))
            with pytest.raises(DiskError, match=r"failed before, .*medium"):
                two.send(0)
            if kind == other == "fua":  # a later one is not about what was lost before
                with pytest.raises(StopIteration):
                    begin("fua").send(0)

    def test_short_ones_are_continued(self, image: Path):
        with FileDisk(image, eager_writes=False) as disk:
            steps = _ring_steps.write(disk, 10, b"0123456789", fua=True)
            assert next(steps)[2:4] == (10, 10)
            assert steps.send(4)[2:4] == (14, 6)
            operation, _, *place, buffer = steps.send(6)
            assert (operation, place, buffer) == (3, [10, 10], None)
            with pytest.raises(StopIteration):
                steps.send(0)
            steps = _ring_steps.read(disk.blocking, 10, memoryview(bytearray(10)))
            assert next(steps)[2:4] == (10, 10)
            assert steps.send(9)[2:4] == (19, 1)
            with pytest.raises(StopIteration):
                steps.send(1)
            steps = _ring_steps.write(disk, 10, b"0123456789", fua=False)
            next(steps)
            with pytest.raises(DiskError, match="takes no data at 10"):
                steps.send(0)

    @pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN, errno.ECANCELED])
    def test_a_call_that_was_not_made_is_made_by_a_worker(
        self, image: Path, ring_works: None, number: int
    ):
        del ring_works

        async def main() -> None:
            with FileDisk(image) as disk:
                forget(disk)
                reading = asyncio.create_task(disk.read(5, 10))
                ring = await ring_at_work(reading)
                name, operation = ring._under_way.popitem()
                operation.name = name + 1000
                ring._under_way[operation.name] = operation
                ring._tell(operation.name, -number)
                assert await reading == CONTENT[5:15]

        homebound.run(main())

    def test_a_kernel_without_memory(
        self, image: Path, ring_works: None, monkeypatch: pytest.MonkeyPatch
    ):
        del ring_works

        async def main() -> None:
            with FileDisk(image) as disk:
                forget(disk)
                ring = ring_here()
                assert ring is not None
                with monkeypatch.context() as patched:
                    patched.setattr(ring._ring, "_enter", lambda *_: 0)
                    read = await asyncio.gather(*[disk.read(n, 10) for n in range(5)])
                assert read == [CONTENT[n : n + 10] for n in range(5)]
                await disk.write(0, b"x", fua=True)

        homebound.run(main())


async def ring_at_work(task: asyncio.Future[Any]) -> HomeRing:
    """Let a task begin its request; the results are not looked at before this home goes on."""
    await asyncio.sleep(0)
    assert not task.done()
    ring = ring_here()
    assert ring is not None
    assert ring._under_way
    return ring


class Stuck:
    """An operation that reads from a pipe: it ends when the test says so."""

    def __init__(self, calls: int = 2) -> None:
        self.calls = calls
        self.read_end, self.write_end = os.pipe()
        self.buffer = bytearray(2)
        self.ended = threading.Event()

    def steps(self) -> Any:
        try:
            for n in range(self.calls):
                part = memoryview(self.buffer)[n : n + 1]
                yield 22, self.read_end, ANYWHERE, 1, part
        finally:
            self.ended.set()

    def go_on(self, data: bytes = b"ab") -> None:
        os.write(self.write_end, data)


@contextmanager
def stuck(calls: int = 2) -> Iterator[Stuck]:
    made = Stuck(calls)
    try:
        yield made
    finally:
        made.go_on()  # for what a test that fails has left
        os.close(made.read_end)
        os.close(made.write_end)


async def carried_out(steps: Any) -> None:
    ring = ring_here()
    assert ring is not None
    await ring.carry_out(steps)


@pytest.mark.usefixtures("ring_works")
class TestEnds:
    @pytest.mark.parametrize("times", [1, 3])
    def test_a_cancelled_one_lasts_until_its_call_has_ended(self, times: int):
        async def main() -> None:
            with stuck() as pipe:
                task = asyncio.create_task(carried_out(pipe.steps()))
                await asyncio.sleep(0)
                for _ in range(times):
                    task.cancel()
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    assert not task.done()
                with pytest.raises(BufferError):
                    pipe.buffer.clear()
                pipe.go_on()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert pipe.buffer == b"ab"
                assert pipe.ended.is_set()

        homebound.run(main())

    def test_the_end_of_a_home_waits(self):
        with no_leaks(), stuck() as pipe:
            timer = threading.Timer(0.05, pipe.go_on)

            async def main() -> None:
                asyncio.create_task(carried_out(pipe.steps()))  # noqa: RUF006
                await asyncio.sleep(0)
                timer.start()

            homebound.run(main())
            assert pipe.ended.is_set()
            timer.join()

    def test_a_loop_that_is_closed_leaves_it_to_a_thread(self):
        with stuck() as pipe:
            loop = homebound.new_event_loop()
            task = loop.create_task(carried_out(pipe.steps()))
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            assert not pipe.ended.is_set()
            pipe.go_on(b"a")
            # The second call is made by the thread, and a pipe refuses one at an offset.
            assert pipe.ended.wait(20)
            assert pipe.buffer[:1] == b"a"
            del task

    @pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
    def test_a_loop_that_is_dropped_leaves_it_to_a_thread_too(self):
        with stuck() as pipe:
            loop = homebound.new_event_loop()
            loop.set_exception_handler(lambda *_: None)  # the task is reported as lost
            task = loop.create_task(carried_out(pipe.steps()))
            loop.run_until_complete(asyncio.sleep(0))
            del task, loop
            gc.collect()
            assert not pipe.ended.is_set()
            with pytest.raises(BufferError):
                pipe.buffer.clear()
            pipe.go_on(b"a")
            assert pipe.ended.wait(20)
            assert pipe.buffer[:1] == b"a"

    # The kernel's threads for the ring count as the process's.
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_a_fork_leaves_the_parents_alone(self):
        async def main() -> None:
            with stuck() as pipe:
                task = asyncio.create_task(carried_out(pipe.steps()))
                await asyncio.sleep(0)
                pid = os.fork()
                if not pid:
                    status = 1
                    try:
                        assert ring_here() is None
                        homebound.run(use_own())
                        status = 0
                    finally:
                        os._exit(status)
                _, status = await homebound.to_worker(os.waitpid, pid, 0)
                assert os.waitstatus_to_exitcode(status) == 0
                pipe.go_on()
                await task
                assert pipe.buffer == b"ab"

        async def use_own() -> None:
            with stuck() as pipe:
                pipe.go_on()
                await carried_out(pipe.steps())

        homebound.run(main())

    def test_a_stand_in_uses_workers_and_takes_results(self, image: Path, in_thread: Any):
        async def main() -> None:
            with FileDisk(image) as disk, stuck(1) as pipe:
                task = asyncio.create_task(carried_out(pipe.steps()))
                await asyncio.sleep(0)

                def work() -> bytes:
                    with homebound.big_lock:
                        assert ring_here() is None
                        pipe.go_on(b"a")
                        forget(disk)
                        return bytes(homebound.block_on(disk.read(7, 70)))

                done: Future[bytes] = in_thread(work)
                assert await asyncio.wrap_future(done) == CONTENT[7:77]
                await task
                assert pipe.buffer[:1] == b"a"

        homebound.run(main())

    def test_many_more_than_it_has_room_for(self, image: Path):
        async def main() -> None:
            with FileDisk(image) as disk:
                forget(disk)
                reads = [disk.read(n * 1000, 100) for n in range(1000)]
                assert await asyncio.gather(*reads) == [
                    CONTENT[n * 1000 : n * 1000 + 100] for n in range(1000)
                ]

        homebound.run(main())

    def test_several_homes(self, image: Path):
        async def use(disk: FileDisk, place: int) -> None:
            for n in range(20):
                data = bytes([place, n]) * 50
                await disk.write(place * 1000 + n, data, fua=True)
                assert await disk.read(place * 1000 + n, 100) == data

        with FileDisk(image) as disk, homebound.IOThreadPool(3) as pool:
            tasks = [pool.spawn(use(disk, place)) for place in range(9)]
            for task in tasks:
                homebound.block_on(task)

    def test_results_that_an_exception_delays_are_told_later(self):
        async def main() -> None:
            with stuck() as one, stuck() as other:
                tasks = [asyncio.create_task(carried_out(each.steps())) for each in (one, other)]
                await asyncio.sleep(0)
                ring = ring_here()
                assert ring is not None
                real = ring._tell
                raised: list[int] = []

                def tell(name: int, result: int) -> None:
                    real(name, result)
                    if not raised:
                        raised.append(name)
                        raise ZeroDivisionError

                ring._tell = tell  # type: ignore[method-assign]
                ring._loop.set_exception_handler(lambda *_: None)
                one.go_on()
                other.go_on()
                await asyncio.gather(*tasks)
                assert raised

        homebound.run(main())

    @pytest.mark.parametrize("when", ["before", "after", "between"])
    def test_a_result_is_told_although_an_exception_comes(self, image: Path, when: str):
        async def main() -> None:
            with FileDisk(image) as disk:
                forget(disk)
                ring = ring_here()
                assert ring is not None
                raised: list[str] = []
                real = ring._go_on

                def go_on(operation: Any, result: Any, under_way: Any = None) -> None:
                    if under_way is None or raised:
                        real(operation, result, under_way)
                        return
                    raised.append(when)
                    if when == "between":  # its next call is not queued
                        operation.go_on(1, under_way)
                    elif when == "after":
                        operation.go_on(result, under_way)
                    raise ZeroDivisionError

                ring._go_on = go_on  # type: ignore[method-assign]
                ring._loop.set_exception_handler(lambda *_: None)
                assert await disk.read(5, 10) == CONTENT[5:15]
                assert raised
                assert not ring._under_way

        homebound.run(main())

    def test_an_exception_at_the_last_result_delays_nothing_else(self):
        """Neither the next call of the operation, nor what is to follow later results."""

        async def main() -> None:
            with stuck() as pipe:
                task = asyncio.create_task(carried_out(pipe.steps()))
                await asyncio.sleep(0)
                ring = ring_here()
                assert ring is not None
                real = ring._tell
                reports: list[Any] = []
                ring._loop.set_exception_handler(lambda _, report: reports.append(report))

                def tell(name: int, result: int) -> None:
                    real(name, result)
                    if not reports:
                        raise ZeroDivisionError

                ring._tell = tell  # type: ignore[method-assign]
                pipe.go_on()
                await task
                assert reports
                assert not ring.call_last(print)  # no results are being told

        homebound.run(main())

    def test_one_that_cannot_begin_ends(self, image: Path, monkeypatch: pytest.MonkeyPatch):
        def refuse(*_: object) -> None:
            raise MemoryError

        async def main() -> None:
            with FileDisk(image) as disk:
                ring = ring_here()
                assert ring is not None
                with monkeypatch.context() as patched:
                    patched.setattr(_home_ring, "address_of", refuse)
                    with pytest.raises(MemoryError) as caught:
                        await disk.read(0, 10)
                assert not ring._under_way
                assert not disk.blocking._descriptor._users
                del caught  # until here it refers to the operation
                assert await disk.read(0, 10) == CONTENT[:10]

        homebound.run(main())

    def test_one_is_under_way_from_before_it_is_queued(
        self, image: Path, monkeypatch: pytest.MonkeyPatch
    ):
        async def main() -> None:
            with FileDisk(image) as disk:
                ring = ring_here()
                assert ring is not None

                def interrupted(*_: object) -> None:
                    assert ring._under_way  # before, as the kernel may use its memory from now on
                    raise KeyboardInterrupt

                with monkeypatch.context() as patched:
                    patched.setattr(ring._ring, "queue", interrupted)
                    with pytest.raises(KeyboardInterrupt):
                        await ring.carry_out(_ring_steps.flush(disk.blocking))
                assert not ring._under_way
                assert not disk.blocking._descriptor._users
                await disk.write(0, b"x", fua=True)

        homebound.run(main())

    def test_the_end_of_a_home_submits_what_an_exception_has_kept_back(self, image: Path):
        async def main() -> None:
            with FileDisk(image) as disk:
                ring = ring_here()
                assert ring is not None
                operation = _home_ring.Awaited(_ring_steps.flush(disk.blocking))
                ring.start(operation)
                try:
                    await asyncio.wait_for(ring.end(), 20)
                finally:
                    ring.submit()
                assert operation.ended

        homebound.run(main())


class TestNone:
    def test_a_loop_that_has_no_room_for_a_reader(
        self, image: Path, ring_works: None, monkeypatch: pytest.MonkeyPatch
    ):
        del ring_works

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "epoll")

        async def main() -> None:
            monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
            with FileDisk(image) as disk:
                await disk.write(0, b"x", fua=True)
                assert await disk.read(0, 1) == b"x"
            assert ring_here() is None

        with no_leaks():
            homebound.run(main())

    @pytest.mark.parametrize("failure", [OSError(errno.EPERM, "seccomp"), ImportError("ctypes")])
    def test_workers_are_used(
        self, image: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ):
        tried = []

        def refuse(*_: object) -> None:
            tried.append(failure)
            raise failure

        monkeypatch.setattr(_home_ring, "Ring", refuse)

        async def main() -> None:
            with FileDisk(image) as disk:
                for _ in range(3):
                    await disk.write(0, b"x", fua=True)
                    assert await disk.read(0, 1) == b"x"
                await settle()

        homebound.run(main())
        assert len(tried) <= 1

    def test_a_loop_of_others(self, image: Path, ring_works: None):
        del ring_works

        async def main() -> None:
            homebound.AioContext.attach(asyncio.get_running_loop())
            with FileDisk(image) as disk:
                assert ring_here() is None
                await disk.write(0, b"x", fua=True)

        asyncio.run(main())
