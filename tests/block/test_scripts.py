"""Disks that are Python scripts: what they may define, and errors that say where."""

from __future__ import annotations

import errno
import logging
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import homebound
from homebound.block import Disk, DiskClosed, Extent, ScriptError, open_disk
from homebound.block._scripts.disk import ScriptDisk
from homebound.block._scripts.open import open_script
from homebound.testing import check_disk

from .scripts import do

PLAIN = """
    data = bytearray(100_001)
    size = len(data)

    def read(offset, length):
        return data[offset:offset + length]

    def write(offset, new):
        data[offset:offset + len(new)] = new

    def flush():
        pass
"""
INTO = """
    data = bytearray(100_001)

    def size():
        return len(data)

    def read_into(offset, buffer):
        buffer[:] = data[offset:offset + len(buffer)]
        return len(buffer)

    def pwrite(new, offset):
        data[offset:offset + len(new)] = new
        return len(new)

    def zero(offset, length, no_hole):
        data[offset:offset + length] = bytes(length)

    def trim(offset, length):
        data[offset:offset + length] = b"t" * length

    def extents(offset, length):
        return [(length // 2, False, False), (length - length // 2, False, False)]

    parallel = True
"""
ASYNC = """
    import asyncio

    class Disk:
        def __init__(self, size="100001"):
            self.data = bytearray(int(size))
            self.size = len(self.data)

        async def pread(self, length, offset):
            await asyncio.sleep(0)
            return memoryview(self.data)[offset:offset + length]

        async def pwrite(self, new, offset):
            await asyncio.sleep(0)
            self.data[offset:offset + len(new)] = new

        def flush(self):
            "A plain function, for a worker."
"""
ONE_BY_ONE = ASYNC + "\n        parallel = False\n"
SUBCLASS = """
    from homebound.block import MemoryDisk

    class Mine(MemoryDisk):
        def __init__(self, size="100001"):
            super().__init__(int(size))
"""
ALL = {"plain": PLAIN, "into": INTO, "async": ASYNC, "one": ONE_BY_ONE, "subclass": SUBCLASS}


def opened(path: str, **parameters: str) -> Disk:
    disk = open_script(path, list(parameters.items()), read_only=False)
    assert isinstance(disk, Disk)
    return disk


@pytest.mark.parametrize("kind", ALL)
def test_every_form_is_a_disk(script: Any, kind: str):
    path = script(ALL[kind])
    check_disk(lambda: opened(path))


@pytest.mark.parametrize("kind", ["async", "subclass"])
def test_parameters_of_a_class(script: Any, kind: str):
    with opened(script(ALL[kind]), size="512") as disk:
        assert disk.size == 512


def test_parameters_of_a_module(script: Any):
    path = script("""
        def configure(length, fill="0"):
            global size, data
            size = int(length)
            data = bytes([int(fill)]) * size
        def read(offset, length):
            return data[offset:offset + length]
    """)
    with opened(path, length="4", fill="7") as disk:
        assert (disk.read_only, do(disk.read, 1, 2)) == (True, b"\7\7")
    with pytest.raises(ScriptError, match=r"disk\.py, line 2: configure: missing a required arg"):
        opened(path)
    with pytest.raises(ScriptError, match="the parameter length is given twice"):
        open_script(path, [("length", "1"), ("length", "2")], read_only=False)


def test_open_disk(script: Any):
    path = script(PLAIN)

    async def main() -> None:
        with await open_disk(path) as disk:
            await disk.write(3, b"abc", fua=True)
            assert await disk.read(2, 5) == b"\0abc\0"
            assert (disk.read_only, disk.shared_cache, repr(disk)) == (
                False,
                True,
                f"<disk of {path!r}>",
            )
        with pytest.raises(DiskClosed):
            await disk.read(0, 1)
        with await open_disk(path, read_only=True) as disk:
            assert disk.read_only

    homebound.run(main())


def test_what_a_server_is_told(script: Any):
    with opened(script(PLAIN)) as disk:
        assert (disk.can_flush, disk.can_fua, disk.can_trim) == (True, True, False)
    text = PLAIN + "\n    preferred_block = 65536\n    minimum_block = 512\n"
    with opened(script(text)) as disk:
        assert (disk.preferred_block, disk.minimum_block) == (65536, 512)
    with opened(script(INTO)) as disk:
        assert (disk.can_flush, disk.can_fua, disk.can_trim) == (False, False, True)
        assert do(disk.block_status, 0, 10) == [Extent(10)]


def test_extents(script: Any):
    path = script(
        PLAIN
        + """
    def extents(offset, length):
        return [(length // 2, True, True), (length, False, False)]
    """
    )
    with opened(path) as disk:
        assert do(disk.block_status, 0, 8) == [Extent(4, hole=True, zero=True), Extent(4)]
        assert do(disk.block_status, 5, 0) == []


def test_fua_is_a_flush_unless_the_function_takes_it(script: Any):
    path = script("""
        size = 512
        calls = []
        def read(offset, length): return bytes(length)
        def write(offset, data): calls.append("write")
        def zero(offset, length, fua=False): calls.append(("zero", fua))
        def trim(offset, length): calls.append("trim")
        def flush(): calls.append("flush")
        def close(): calls.append("close")
    """)
    with opened(path) as disk:
        calls = disk.functions.attribute("calls", None)  # type: ignore[attr-defined]
        do(disk.write, 0, b"x", fua=True)
        do(disk.write_zeroes, 0, 9, fua=True)
        do(disk.trim, 0, 9, fua=True)
        do(disk.write, 0, b"x")
    assert calls == ["write", "flush", ("zero", True), "trim", "flush", "write", "close"]


@pytest.mark.parametrize("is_async", ["", "async "])
def test_zeroes_written_as_data_keep_fua(script: Any, is_async: str):
    """There is no flush that could follow, so each write has to see to it itself."""
    path = script(f"""
        size = 3 << 20
        calls = []
        def read(offset, length): return bytes(length)
        {is_async}def write(offset, data, fua=False): calls.append((offset, len(data), fua))
    """)
    with opened(path) as disk:
        calls = disk.functions.attribute("calls", None)  # type: ignore[attr-defined]
        do(disk.write_zeroes, 0, 5 << 18, fua=True)
        do(disk.write_zeroes, 7, 9)
    assert calls == [(0, 1 << 20, True), (1 << 20, 1 << 18, True), (7, 9, False)]


@pytest.mark.parametrize("is_async", ["", "async "])
def test_zeroes_written_as_data_are_flushed_once(script: Any, is_async: str):
    path = script(f"""
        size = 3 << 20
        calls = []
        def read(offset, length): return bytes(length)
        {is_async}def write(offset, data): calls.append("write")
        def flush(): calls.append("flush")
    """)
    with opened(path) as disk:
        calls = disk.functions.attribute("calls", None)  # type: ignore[attr-defined]
        do(disk.write_zeroes, 0, 5 << 18, fua=True)
    assert calls == ["write", "write", "flush"]


def test_plain_functions_are_called_one_at_a_time(script: Any):
    """Unless the script says `parallel`; and then they overlap."""
    path = script("""
        import threading
        size = 512
        parallel = False
        inside = most = 0
        entered, guard = threading.Barrier(2), threading.Lock()
        def read(offset, length):
            global inside, most
            with guard:
                inside += 1
                most = max(most, inside)
            if parallel:
                entered.wait()
            with guard:
                inside -= 1
            return bytes(length)
    """)
    for parallel in (False, True):
        if parallel:
            path = script(Path(path).read_text().replace("parallel = False", "parallel = True"))
        with opened(path) as disk:
            assert isinstance(disk, ScriptDisk)
            read, buffer = disk.blocking.read_into, memoryview(bytearray(1))
            threads = [threading.Thread(target=read, args=(0, buffer)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert disk.functions.attribute("most", 0) >= 1 + parallel
            if not parallel:
                assert disk.functions.attribute("most", 0) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def read(offset:", r", line 1: SyntaxError: '\(' was never closed"),
        ("import nothing_such", ", line 1: ModuleNotFoundError: No module named 'nothing_such'"),
        ("x = 1\n\n1 / 0", ", line 3: ZeroDivisionError: division by zero"),
        ("def f(): raise KeyError\nf()", ", line 1, in f: KeyError"),
        ("raise SystemExit(3)", ", line 1: SystemExit: 3"),
        ("", ": a disk needs read(offset, length), pread"),
        ("def read(o, n): ...", ": a disk needs a size: a number, or size() returns it"),
        ("def read(o, n): ...\nsize = '4K'", ": size is '4K'; it must be a number of bytes"),
        ("def read(o, n): ...\nsize = -1", ": size is -1; it must be"),
        (
            "def read(o, n): ...\ndef size(): return None",
            ", line 2: size() returned None; it must be a number of bytes",
        ),
        ("def read(o, n): ...\nasync def size(): return 1", ", line 2: size() returned <coroutine"),
        (
            "class A:\n def read(s, o, n): ...\nclass B:\n def pread(s, n, o): ...",
            ": one class can be the disk, not A, B; name one of them Disk",
        ),
        ("def read(o, n): ...\nsize = 1\nminimum_block = 3", ": minimum_block is 3; it must be a"),
        (
            "API_VERSION = 2",
            ": an nbdkit plugin must define open, get_size, pread; open is missing",
        ),
    ],
)
def test_what_is_no_disk(script: Any, text: str, says: str):
    path = script(text)
    pattern = says if says.startswith(r", line 1: SyntaxError") else re.escape(says)
    with pytest.raises(ScriptError, match=f"^{re.escape(path)}{pattern}") as caught:
        opened(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("body", "number", "says"),
    [
        (
            "return None",
            errno.EIO,
            "line 4: read() of 4 bytes at 8 returned None; it must return 4",
        ),
        ("return b'abc'", errno.EIO, "line 4: read() of 4 bytes at 8 returned 3 bytes; it must"),
        ("return 'abcd'", errno.EIO, "line 4: read() of 4 bytes at 8 returned 'abcd'; it must"),
        ("return offset // 0", errno.EIO, "line 5, in read: ZeroDivisionError: "),
        ("raise OSError(28, 'full')", errno.ENOSPC, "line 5, in read: OSError: [Errno 28] full"),
        ("raise SystemExit", errno.EIO, "line 5, in read: SystemExit"),
    ],
)
def test_failures_of_a_read(script: Any, is_async: object, body: str, number: int, says: str):
    path = script(
        f"size = 512\n\n\n{'async ' * bool(is_async)}def read(offset, length):\n    {body}\n"
    )
    with opened(path) as disk:
        for _ in range(2):
            with pytest.raises(ScriptError, match=re.escape(f"{path}, {says}")) as caught:
                do(disk.read, 8, 4)
            assert caught.value.errno == number


@pytest.mark.parametrize("returned", ["3", "'x'", "True"])
def test_a_write_that_is_not_whole(script: Any, returned: str):
    path = script(f"""
        size = 512
        def read(offset, length): return bytes(length)
        def write(offset, data): return {returned}
    """)
    with (
        opened(path) as disk,
        pytest.raises(ScriptError, match=r"line 4: write\(\) of 4 bytes at 0 returned"),
    ):
        do(disk.write, 0, b"abcd")


@pytest.mark.parametrize("returned", ["None", "[(4, False)]", "[7]", "[(9, 0, 0), (1,)]"])
def test_extents_that_do_not_add_up(script: Any, returned: str):
    path = script(PLAIN + f"\n    def extents(offset, length): return {returned}\n")
    with opened(path) as disk:
        if returned == "[(9, 0, 0), (1,)]":
            assert do(disk.block_status, 0, 9) == [Extent(9)]
        else:
            with pytest.raises(ScriptError, match="it must return pieces"):
                do(disk.block_status, 0, 9)


def test_data_may_be_kept(script: Any):
    """`write` gets bytes of its own."""
    path = script("""
        size = 512
        kept = {}
        def read(offset, length): return kept[offset]
        def write(offset, data): kept[offset] = data
    """)
    with opened(path) as disk:
        buffer = bytearray(b"abcd")
        do(disk.write, 0, buffer)
        buffer[:] = b"zzzz"
        assert do(disk.read, 0, 4) == b"abcd"


def test_a_close_that_fails_is_logged(script: Any, caplog: pytest.LogCaptureFixture):
    with (
        caplog.at_level(logging.WARNING),
        opened(script(PLAIN + "\n    def close(): close.x\n")),
    ):
        pass
    assert "in close: AttributeError" in caplog.text


def test_modules_beside_the_script(script: Any, tmp_path: Path):
    """They can be imported, and hide none of Python's."""
    (tmp_path / "beside_the_script.py").write_text("SIZE = 4096")
    (tmp_path / "json.py").write_text("1 / 0")
    path = script("""
        import json
        from dataclasses import dataclass
        from beside_the_script import SIZE as size

        @dataclass
        class Part:
            "Looks its module up in sys.modules."
            offset: "int"

        def read(offset, length): return bytes(length)
    """)
    with opened(path) as disk:
        assert disk.size == 4096
    del sys.modules["beside_the_script"]
