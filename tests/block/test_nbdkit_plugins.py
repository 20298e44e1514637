"""nbdkit's Python plugins, unchanged: the functions, constants and thread models they know."""

from __future__ import annotations

import errno
import sys
import threading
from typing import Any

import pytest

import homebound
from homebound.block import DiskReadOnly, Extent, open_disk
from homebound.block._scripts.nbdkit_module import FLAG_FUA, Session
from homebound.block._scripts.plugin_disk import PluginDisk
from homebound.testing import check_disk

from .nbdkit_plugins import FULL, OLD, RAM, connected, started
from .scripts import do


@pytest.mark.parametrize("text", [RAM, OLD, FULL], ids=["2", "1", "full"])
def test_it_is_a_disk(script: Any, text: str):
    path = script(text)

    check_disk(lambda: PluginDisk(started(path), Session()))


def test_open_disk_makes_a_plugin_of_its_own(script: Any):
    path = script(FULL + "\n    def cleanup():\n        calls.append('cleanup')\n")

    async def main() -> None:
        with await open_disk(path) as disk:
            await disk.write(3, b"abc")
            assert await disk.read(2, 5) == b"\0abc\0"
            calls = disk._plugin.module.calls  # type: ignore[attr-defined]
        assert calls[-2:] == ["close", "cleanup"]

    homebound.run(main())


def test_its_life(script: Any):
    path = script(
        RAM
        + """
    def config(key, value): calls.append((key, value))
    def config_complete(): calls.append("config_complete")
    def thread_model():
        calls.append("thread_model")
        return nbdkit.THREAD_MODEL_SERIALIZE_REQUESTS
    def get_ready(): calls.append("get_ready")
    def after_fork(): calls.append("after_fork")
    def cleanup(): calls.append("cleanup")
    def preconnect(readonly): calls.append(("preconnect", readonly))
    def close(h): calls.append(("close", h))
    """
    )
    plugin = started(path, ("a", "1"), ("a", "2"), ("b", ""), read_only=True)
    disk = PluginDisk(plugin, Session())
    with pytest.raises(DiskReadOnly):
        do(disk.write, 0, b"x")
    disk.close()
    disk.close()
    plugin.stop()
    assert plugin.module.calls == [
        *[("a", "1"), ("a", "2"), ("b", "")],
        *["config_complete", "thread_model", "get_ready", "after_fork"],
        *[("preconnect", True), ("close", {"readonly": True}), "cleanup"],
    ]


def test_flags_version_2(script: Any):
    path = script(
        FULL
        + """
    def can_fua(h): return nbdkit.FUA_NATIVE
    def can_fast_zero(h): return True
    """
    )
    disk, calls = connected(path)
    with disk:
        do(disk.write, 0, b"ab")
        do(disk.write, 0, b"ab", fua=True)
        do(disk.trim, 5, 6, fua=True)
        do(disk.write_zeroes, 7, 8)
        do(disk.write_zeroes, 7, 8, fua=True, no_hole=True)
        do(disk.fast_zeroes, 7, 8)
        do(disk.cache, 1, 2)
        do(disk.flush)
        assert (disk.can_flush, disk.can_fua, disk.can_trim) == (True, True, True)
        assert disk.can_fast_zero
    nbdkit = sys.modules["nbdkit"]
    fua, may_trim, fast = nbdkit.FLAG_FUA, nbdkit.FLAG_MAY_TRIM, nbdkit.FLAG_FAST_ZERO
    assert calls == [
        ("pwrite", 2, 0),
        ("pwrite", 2, fua),
        ("trim", 6, 5, fua),
        ("zero", 8, 7, may_trim),
        ("zero", 8, 7, fua),
        ("zero", 8, 7, may_trim | fast),
        ("cache", 2, 1, 0),
        ("flush", 0),
        "close",
    ]


def test_calls_of_version_1(script: Any):
    disk, calls = connected(script(OLD))
    with disk:
        do(disk.trim, 1, 2)
        do(disk.write_zeroes, 3, 4)
        do(disk.write_zeroes, 3, 4, no_hole=True, fua=True)
    assert calls == [("trim", 2, 1), ("zero", 4, 3, True), ("zero", 4, 3, False), "flush"]


@pytest.mark.parametrize(
    ("fua", "flushes"), [("FUA_NONE", True), ("FUA_EMULATE", True), ("FUA_NATIVE", False)]
)
def test_fua(script: Any, fua: str, flushes: object):
    disk, calls = connected(script(FULL + f"\n    def can_fua(h): return nbdkit.{fua}\n"))
    with disk:
        assert disk.can_fua == (fua != "FUA_NONE")
        do(disk.write, 0, b"x", fua=True)
        assert (("flush", 0) in calls) == flushes


@pytest.mark.parametrize("lacking", ["", "def can_zero(h): return False"])
def test_fua_of_zeroes_that_are_written_as_data(script: Any, lacking: str):
    """The plugin takes FUA as a flag, and gets no flush: each pwrite must have the flag."""
    path = script(
        RAM
        + f"""
    def can_fua(h): return nbdkit.FUA_NATIVE
    def zero(h, count, offset, flags): nbdkit.set_error(95)
    def flush(h, flags): calls.append("flush")
    {lacking}
    """
    )
    disk, calls = connected(path)
    with disk:
        do(disk.write_zeroes, 0, 9, fua=True)
        do(disk.write_zeroes, 0, 8)
    assert calls == [("pwrite", 9, FLAG_FUA), ("pwrite", 8, 0)]


@pytest.mark.parametrize("how", ["set_error", "no exception", "OSError"])
def test_zero_falls_back_to_pwrite(script: Any, how: str):
    raising = {
        "set_error": "nbdkit.set_error(errno.EOPNOTSUPP); raise Exception",
        "no exception": "nbdkit.set_error(errno.ENOTSUP)",
        "OSError": "raise OSError(errno.EOPNOTSUPP, 'no')",
    }[how]
    path = script(
        RAM
        + f"""
    import errno
    def zero(h, count, offset, flags): {raising}
    def can_fast_zero(h): return True
    """
    )
    disk, calls = connected(path)
    with disk:
        do(disk.write, 0, b"x" * 4096)
        do(disk.write_zeroes, 1, 4000)
        assert do(disk.read, 0, 4096) == b"x" + bytes(4000) + b"x" * 95
        with pytest.raises(OSError, match="no quick way") as caught:
            do(disk.fast_zeroes, 0, 512)
        assert caught.value.errno == errno.ENOTSUP
        assert [call[0] for call in calls] == ["pwrite", "pwrite"]


def test_what_it_can(script: Any):
    no = "\n".join(
        f"    def {name}(h): return False"
        for name in ("can_write", "can_flush", "can_trim", "can_zero", "can_extents")
    )
    disk, _ = connected(script(f"{FULL}\n{no}"))
    with disk:
        told = (disk.read_only, disk.can_flush, disk.can_trim, disk.shared_cache, disk.rotational)
        assert told == (True, False, False, False, False)
    disk, _ = connected(
        script(
            FULL
            + """
    def can_multi_conn(h): return True
    def is_rotational(h): return True
    def block_size(h): return (512, 65536, 0xffffffff)
    def export_description(h): return "the best"
    """
        )
    )
    with disk:
        assert (disk.shared_cache, disk.rotational, disk.description) == (True, True, "the best")
        assert (disk.minimum_block, disk.preferred_block) == (512, 65536)


def test_extents(script: Any):
    """They may begin before the range, end after it, and be told in several calls."""
    path = script(
        RAM
        + """
    def extents(h, count, offset, flags):
        calls.append((count, offset, flags))
        start = offset // 100 * 100
        kinds = [0, nbdkit.EXTENT_ZERO, nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO]
        return ((at, 100, kinds[at // 100 % 3]) for at in (start, start + 100))
    """
    )
    disk, calls = connected(path)
    with disk:
        assert do(disk.block_status, 50, 300) == [
            Extent(50),
            Extent(100, zero=True),
            Extent(100, hole=True, zero=True),
            Extent(50),
        ]
    assert calls == [(300, 50, 0), (150, 200, 0)]


@pytest.mark.parametrize(
    ("cache", "calls"),
    [("CACHE_NONE", []), ("CACHE_EMULATE", ["pread"]), ("CACHE_NATIVE", [("cache", 5, 1, 0)])],
)
def test_cache(script: Any, cache: str, calls: list[Any]):
    path = script(
        FULL
        + f"""
    def can_cache(h): return nbdkit.{cache}
    def pread(h, buf, offset, flags): calls.append("pread")
    """
    )
    disk, made = connected(path)
    with disk:
        do(disk.cache, 1, 5)
        assert made == calls


@pytest.mark.parametrize(
    ("model", "most"),
    [
        (None, 1),
        ("SERIALIZE_CONNECTIONS", 1),
        ("SERIALIZE_ALL_REQUESTS", 1),
        ("SERIALIZE_REQUESTS", 2),
        ("PARALLEL", 4),
    ],
)
def test_thread_models(script: Any, model: str | None, most: int):
    """Two connections with two requests each: as many are inside as the model allows."""
    text = (
        f"{RAM}\n    most, inside = {most}, []\n"
        """
    import threading
    entered, peak, guard = threading.Barrier(most), [], threading.Lock()
    def pread(h, buf, offset, flags):
        with guard:
            inside.append(1)
            peak.append(len(inside))
        entered.wait()
        with guard:
            inside.pop()
    """
    )
    if model is not None:
        text += f"\n    def thread_model(): return nbdkit.THREAD_MODEL_{model}\n"
    plugin = started(script(text))
    disks = [PluginDisk(plugin, Session()) for _ in range(2)]
    threads = [
        threading.Thread(target=disk.blocking.read_into, args=(0, memoryview(bytearray(1))))
        for disk in disks
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for disk in disks:
        disk.close()
    assert max(plugin.module.peak) == most


def test_a_close_waits_for_the_calls_under_way(script: Any):
    path = script(
        FULL
        + """
    import threading
    begun, go_on = threading.Event(), threading.Event()
    def pread(h, buf, offset, flags):
        begun.set()
        go_on.wait()
        calls.append("read")
    """
    )
    plugin = started(path)
    disk = PluginDisk(plugin, Session())

    def read() -> None:
        assert disk.try_begin()
        disk.blocking.read_into(0, memoryview(bytearray(1)))
        disk.end()

    thread = threading.Thread(target=read)
    thread.start()
    plugin.module.begun.wait()
    disk.close()
    assert plugin.module.calls == []
    plugin.module.go_on.set()
    thread.join()
    assert plugin.module.calls == ["read", "close"]
