"""nbdkit's Python plugins with mistakes: what is raised or logged, and which line it names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from homebound.block import ScriptError
from homebound.block._scripts.nbdkit_module import Session
from homebound.block._scripts.plugin_disk import PluginDisk

from .nbdkit_plugins import FULL, OLD, RAM, connected, started
from .scripts import do


@pytest.mark.parametrize("told", ["[]", "None", "[(0, 10)]", "[(500, 10, 0)]", "[(0, 'x', 0)]"])
def test_extents_that_tell_nothing(script: Any, told: str):
    path = script(RAM + f"\n    def extents(h, count, offset, flags): return {told}\n")
    disk, _ = connected(path)
    with disk, pytest.raises(ScriptError, match=r"disk\.py, line \d+: extents\(\) returned"):
        do(disk.block_status, 0, 100)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def config(k, v): raise RuntimeError('unknown ' + k)", "in config: RuntimeError: unknow"),
        ("def config_complete(): raise ValueError('no file')", "in config_complete: ValueError"),
        ("def thread_model(): return 7", ": thread_model() returned 7; it must be one of nbdkit"),
        ("def get_ready(): raise SystemExit", "in get_ready: SystemExit"),
        ("API_VERSION = 3", ": API_VERSION is 3; 1 and 2 are known"),
        ("del pread", ": an nbdkit plugin must define open, get_size, pread; pread is missing"),
        ("x = y", "NameError: name 'y' is not defined"),
    ],
)
def test_what_does_not_start(script: Any, text: str, says: str):
    with pytest.raises(ScriptError) as caught:
        started(script(f"{RAM}\n    {text}\n"), ("k", "v"))
    assert says in str(caught.value) or "defines no config" in str(caught.value)
    assert str(caught.value).startswith(str(Path(caught.value.strerror or "").parent)[:4])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def open(readonly): raise PermissionError('not you')", "in open: PermissionError: not"),
        ("def preconnect(readonly): raise OSError('full')", "in preconnect: OSError: full"),
        ("def get_size(h): return None", "get_size() returned None; it must return a number of"),
        ("def get_size(h): return -1", "get_size() returned -1"),
        ("def block_size(h): return (3, 4, 5)", "block_size() returned (3, 4, 5); NBD wants"),
        ("def block_size(h): return 4096", "block_size() returned 4096"),
        ("def can_fua(h): return 9", "can_fua() returned 9; it must be one of nbdkit's constants"),
    ],
)
def test_what_does_not_open(script: Any, text: str, says: str):
    """The handle is closed if there was one."""
    path = script(FULL + f"\n    {text}\n")
    plugin = started(path)
    with pytest.raises(ScriptError, match=r"disk\.py, line \d+") as caught:
        PluginDisk(plugin, Session())
    assert says in str(caught.value)
    assert plugin.module.calls == ([] if "open" in text or "preconnect" in text else ["close"])


@pytest.mark.parametrize("returned", ["None", "b'ab'", "'abcd'", "7"])
def test_version_1_returns_too_little(script: Any, returned: str):
    disk, _ = connected(script(f"{OLD}\n    def pread(h, count, offset): return {returned}\n"))
    with disk, pytest.raises(ScriptError, match=r"line \d+: pread\(4, 0\) returned .* are due"):
        do(disk.read, 0, 4)


def test_a_close_that_fails_is_logged(script: Any, caplog: pytest.LogCaptureFixture):
    disk, _ = connected(script(f"{RAM}\n    def close(h): h.x\n"))
    with caplog.at_level(logging.WARNING), disk:
        pass
    assert "in close: AttributeError" in caplog.text
