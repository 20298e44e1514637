"""The arguments of a server, and its errors for wrong ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from homebound.block import MemoryDisk
from homebound.nbd import Export, NBDServer

TAKES = (
    "NBDServer takes a Disk, an Export, or a mapping of names to those, or an object with "
    "`async def find(name, client)`; "
)


@pytest.mark.parametrize(
    ("exports", "says"),
    [
        ("raw.img", TAKES + "to serve an image, open it: FileDisk('raw.img')"),
        (Path("a/b"), TAKES + "to serve an image, open it: FileDisk('a/b')"),
        (None, TAKES + "None is a NoneType"),
        ([1], TAKES + "[1] is a list"),
        ({1: MemoryDisk(512)}, "the name of an export must be a str; 1 is an int"),
        ({b"a": MemoryDisk(512)}, "the name of an export must be a str; b'a' is a bytes"),
        (
            {"a": "raw.img"},
            (
                "export 'a' must be a Disk or an Export; "
                "to serve an image, open it: FileDisk('raw.img')"
            ),
        ),
        ({"a": 7}, "export 'a' must be a Disk or an Export; 7 is an int"),
    ],
)
def test_anything_else_is_a_type_error_that_says_what_is_taken(exports: Any, says: str):
    with pytest.raises(TypeError, match=f"^{re.escape(says)}$"):
        NBDServer(exports)


def test_an_export_of_no_disk():
    path: Any = "raw.img"
    says = "an Export takes a Disk; to serve an image, open it: FileDisk('raw.img')"
    with pytest.raises(TypeError, match=re.escape(says)):
        Export(path)


@pytest.mark.parametrize("option", ["max_connections", "round_size"])
def test_numbers_are_checked(option: str):
    zero: Any = {option: 0}
    text: Any = {option: "1"}
    with MemoryDisk(512) as disk:
        with pytest.raises(ValueError, match=f"{option} is 0; it must be at least 1"):
            NBDServer(disk, **zero)
        with pytest.raises(TypeError, match=f"{option} must be an int; '1' is a str"):
            NBDServer(disk, **text)
        with pytest.raises(ValueError, match="round_size is -1"):
            Export(disk, round_size=-1)


@pytest.mark.parametrize("option", ["handshake_timeout", "find_timeout"])
def test_times_are_checked(option: str):
    with MemoryDisk(512) as disk:
        for wrong in (-1, float("nan")):
            options: Any = {option: wrong}
            with pytest.raises(ValueError, match=f"{option} is {wrong}; it must be at least 0"):
                NBDServer(disk, **options)
        options = {option: "1"}
        with pytest.raises(TypeError, match=f"{option} must be a number of seconds; '1' is a str"):
            NBDServer(disk, **options)


def test_a_description_is_a_str():
    description: Any = 5
    with (
        MemoryDisk(512) as disk,
        pytest.raises(TypeError, match="description must be a str; 5 is an int"),
    ):
        Export(disk, description)


@pytest.mark.parametrize(
    ("size", "round_size", "error", "says"),
    [
        (1e9, 1, TypeError, "must be an int; it is 1000000000.0"),
        (None, 512, TypeError, "must be an int; it is None"),
        (-1, 1, ValueError, "is -1; it must be 0 to 2**63 - 1"),
        (1 << 63, 1, ValueError, "is 9223372036854775808; it must be"),
        ((1 << 63) - 1, 512, ValueError, "is 9223372036854775808; it must be"),
    ],
)
def test_sizes_that_clients_cannot_be_told(
    size: Any, round_size: int, error: type[Exception], says: str
):
    """Each client was disconnected, with a struct.error in the log."""
    with MemoryDisk(512) as disk:
        disk.size = size
        with pytest.raises(error, match=f"the size of .*{re.escape(says)}"):
            NBDServer(disk, round_size=round_size)
        disk.size = 512
