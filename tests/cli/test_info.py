"""`homebound info`, from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from homebound.cli._facts import CAPABILITIES, Facts, short_size
from homebound.cli._map import describe

from .programs import fail, inside, succeed

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024


@pytest.fixture
def holed(tmp_path: Path) -> Path:
    path = tmp_path / "holed.img"
    with path.open("wb") as file:
        file.truncate(1024 * KIB)
        file.seek(256 * KIB)
        file.write(b"x" * 64 * KIB)
    return path


def test_a_file(holed: Path):
    lines = succeed("info", holed).splitlines()
    assert lines[:2] == [f"{holed}:", "\texport-size: 1048576 (1M)"]
    assert {"\tis_read_only: false", "\tcan_trim: true", "\tblock_size_minimum: 1"} <= set(lines)


def test_json(holed: Path):
    [entry] = json.loads(succeed("info", holed, "--json"))["exports"]
    assert (entry["path"], entry["export-size"], entry["export-size-str"]) == (
        str(holed),
        1 << 20,
        "1M",
    )
    assert (entry["format"], entry["can_fast_zero"]) == ("raw", True)


@pytest.mark.parametrize(
    "arguments", [["--map"], ["--map", "base:allocation"], ["--map=base:allocation"]]
)
def test_a_map(holed: Path, arguments: list[str]):
    text = (
        "         0      262144    3  hole,zero\n"
        "    262144       65536    0  data\n"
        "    327680      720896    3  hole,zero\n"
    )
    assert succeed("info", *arguments, holed) == text
    assert succeed("info", holed, *arguments) == text


@pytest.mark.parametrize("arguments", [["--map", "--totals"], ["--totals"]])
def test_totals(holed: Path, arguments: list[str]):
    text = "     65536   6.2%   0 data\n    983040  93.8%   3 hole,zero\n"
    assert succeed("info", holed, *arguments) == text
    assert json.loads(succeed("info", holed, *arguments, "--json")) == [
        {"size": 65536, "percent": 6.25, "type": 0, "description": "data"},
        {"size": 983040, "percent": 93.75, "type": 3, "description": "hole,zero"},
    ]


def test_a_map_in_json(holed: Path):
    extents = json.loads(succeed("info", holed, "--map", "--json"))
    assert extents[1] == {"offset": 262144, "length": 65536, "type": 0, "description": "data"}
    assert sum(each["length"] for each in extents) == 1 << 20


def test_can(holed: Path):
    assert succeed("info", holed, "--can", "write") == ""
    assert inside("info", holed, "--can", "df") == (2, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "DISK is missing"),
        (["{file}", "--can", "fly"], 2, "'fly' is not one of 'connect'"),
        (["{file}", "--list"], 2, "--list needs the NBD URI of a server"),
        (["{file}", "--totals", "--can", "fua"], 2, "three questions; ask one"),
        (["{file}", "--map", "--can", "fua"], 2, "three questions; ask one"),
        (["{file}", "--map", "qemu:dirty-bitmap:b0"], 1, "has no context 'qemu:dirty-bitmap:b0'"),
        (["nothing"], 1, "cannot open image 'nothing': No such file or directory"),
    ],
)
def test_what_cannot_be_told(holed: Path, arguments: list[str], code: int, text: str):
    assert text in fail("info", *(each.format(file=holed) for each in arguments), code=code)


def test_each_capability_has_an_answer():
    flags = {
        f"can_{name}": True
        for name in ("cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero")
    }
    yes = Facts("", 1, {**flags, "is_read_only": False, "is_rotational": True}, None)
    assert [each for each in CAPABILITIES if not yes.can(each)] == [
        "read-only",
        "tls",
        "structured-reply",
    ]
    no = Facts("", 1, {"is_read_only": True}, None, server={"TLS": True, "structured": True})
    assert [each for each in CAPABILITIES if no.can(each)] == [
        "connect",
        "read",
        "read-only",
        "tls",
        "structured-reply",
    ]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1000, "1000"), (1536, "1536"), (3 << 30, "3G"), (1 << 62, "4E")]
)
def test_short_sizes(size: int, text: str):
    assert short_size(size) == text


def test_words_for_extents():
    assert [describe("base:allocation", flags) for flags in (0, 1, 2, 3, 4)] == [
        "data",
        "hole",
        "zero",
        "hole,zero",
        None,
    ]
    assert [describe("qemu:allocation-depth", flags) for flags in (0, 1, 2)] == [
        "unallocated",
        "local",
        "backing depth 2",
    ]
    assert describe("other:context", 0) is None
