"""The modules that the command loads before it does anything: most of the time of its start."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from homebound.cli._group import homebound

from .programs import TIMEOUT

# For drawing on a terminal; for the metadata of distributions, and what that needs.
ALWAYS_LATER = {"rich", "importlib.metadata", "email", "zipfile", "csv"}
DISKS = {"homebound.block", "homebound.nbd"}
LISTING = """
import sys
from homebound.cli import main
try:
    main()
finally:
    import json
    sys.stderr.write(json.dumps(list(sys.modules)))
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


def test_the_copy_of_a_disk_draws_nothing_without_a_terminal():
    assert not loaded("copy", "memory:1M", "memory:1M") & ALWAYS_LATER
