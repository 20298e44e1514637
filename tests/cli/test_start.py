"""The modules that the command loads before it does anything: most of the time of its start."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from homebound.cli._group import homebound

from .programs import TIMEOUT

if TYPE_CHECKING:
    from pathlib import Path

# For drawing on a terminal; for the metadata of distributions, and what that needs.
ALWAYS_LATER = {"rich", "importlib.metadata", "email", "zipfile", "csv"}
DISKS = {"homebound.block", "homebound.nbd"}
LISTING = """
import sys
from homebound.cli import main
try:
    main()
finally:
    found = list(sys.modules)
    import json
    sys.stderr.write(json.dumps(found))
"""


def loaded(*arguments: str) -> set[str]:
    """Return the modules that a run has loaded, which ends well."""
    command = [sys.executable, "-c", LISTING, *arguments]
    done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT)
    return set(json.loads(done.stderr))


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["-h"]], ids=str)
def test_about_the_program(arguments: list[str]):
    modules = loaded(*arguments)
    assert not modules & (ALWAYS_LATER | DISKS)
    assert not {name for name in modules if name.endswith("_command")}


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("bench", "_bench"),
        ("copy", "_copy"),
        ("info", "_info"),
        ("kernel", "_kernel_command"),
        ("serve", "_serve"),
        ("top", "_ps_command"),
    ],
)
def test_a_command_loads_itself_only(command: str, module: str):
    modules = loaded(command, "--help")
    assert not modules & ALWAYS_LATER
    others = {"_bench", "_copy", "_info", "_kernel_command", "_serve", "_ps_command"} - {module}
    assert f"homebound.cli.{module}" in modules
    assert not {f"homebound.cli.{each}" for each in others} & modules


def test_each_command_is_found_by_its_name():
    context = click.Context(homebound)
    names = homebound.list_commands(context)
    assert names == sorted(names)
    for name in names:
        command = homebound.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str()
    assert homebound.get_command(context, "cp") is None


def test_a_copy_loads_only_what_it_uses(tmp_path: Path):
    """Neither other kinds of disks nor what its options need: its start is a part of its time."""
    (tmp_path / "a").write_bytes(b"x" * 8192)
    modules = loaded("copy", str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == b"x" * 8192
    kinds = {"_fault", "_fsspec", "_log", "_memory", "_overlay", "_qcow2", "_scripts", "_slice"}
    options = {"_copying.state", "_copying.checkpoints", "_copying.streams"}
    assert not modules & {f"homebound.block.{each}" for each in kinds | options}
    assert not modules & {"ctypes", "json", "homebound.nbd._server", "random"}
    assert not modules & ALWAYS_LATER


def test_collections_of_cycles_go_on_when_a_command_is_loaded():
    listing = LISTING.replace("list(sys.modules)", "[gc.isenabled()]").replace("sys", "gc, sys", 1)
    for arguments in (["copy", "memory:1M", "memory:1M"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", listing, *arguments],
            capture_output=True, check=True, timeout=TIMEOUT,
        )  # fmt: skip
        assert json.loads(done.stderr) == [True]
