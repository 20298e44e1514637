"""The commands in docs/serve.md, which the program must accept."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.block._scripts.nbdkit_module import Session
from homebound.block._scripts.open import open_script
from homebound.block._scripts.plugin import Plugin
from homebound.block._scripts.plugin_disk import PluginDisk
from homebound.cli._serve_command import serve
from homebound.testing import check_disk

if TYPE_CHECKING:
    from homebound.block import Disk

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
COMMANDS = re.findall(r"^(?:ExecStart=\S*/)?homebound serve (.*)$", PAGE.read_text(), re.MULTILINE)
SCRIPTS = re.findall(
    r"^```python(?: no-run)?\n# (.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
)
SCRIPTS = [f"# {text}" for text in SCRIPTS]
OPTIONS = {option for parameter in serve.params for option in parameter.opts}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command(command: str):
    with serve.make_context("serve", shlex.split(command)) as context:
        assert context.params


@pytest.mark.parametrize("text", SCRIPTS, ids=lambda text: text.split(":")[0])
def test_a_script(text: str, tmp_path: Path):
    """Open it as a disk, and check that it is one."""
    path, image = tmp_path / "script.py", tmp_path / "image"
    path.write_text(text)
    image.write_bytes(bytes(range(256)) * 4)
    parameters = [("file", str(image))] if "def config(" in text else []

    def opened() -> Disk:
        made = open_script(str(path), parameters, read_only=False)
        return PluginDisk(made, Session()) if isinstance(made, Plugin) else made

    check_disk(opened)
    with opened() as disk:
        data = bytes(homebound.run(disk.read(1, 600)))
    if "squares" in text:
        assert data == bytes(n * n % 256 for n in range(1, 601))
    elif "doubled" in text:
        assert data == bytes(n // 2 % 256 for n in range(1, 601))
    else:
        assert data == bytes(600)


def test_there_are_some():
    assert len(SCRIPTS) == 3
    assert len(COMMANDS) >= 8


def test_every_option_that_is_named_exists():
    text = re.sub(r"^\| `(?:nbdkit|qemu-nbd|-)[^|]*\|", "", PAGE.read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) <= OPTIONS
