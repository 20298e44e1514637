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
