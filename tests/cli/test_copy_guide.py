"""The commands in docs/copy.md, which are run; the man page; the completion in the shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from homebound.cli._bench_command import bench
from homebound.cli._copy_command import copy
from homebound.cli._info_command import info
from homebound.cli._serve_command import serve

from .programs import TIMEOUT

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "copy.md"
BLOCK = re.compile(
    r"^```sh(?: needs (?P<needs>[\w. -]+))?\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
BLOCKS = [(block["code"], block["needs"]) for block in BLOCK.finditer(PAGE.read_text())]
OPTIONS = {
    option
    for command in (bench, copy, info, serve)
    for parameter in command.params
    for option in parameter.opts
}
MIB = 1 << 20


@pytest.mark.parametrize(("code", "needs"), BLOCKS, ids=[code.split("\n")[0] for code, _ in BLOCKS])
def test_a_block_runs(code: str, needs: str | None, tmp_path: Path):
    for program in (needs or "").split():
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    programs = tmp_path / "bin"
    programs.mkdir()
    script = programs / "homebound"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m homebound "$@"\n')
    script.chmod(0o755)
    with (tmp_path / "disk.img").open("wb") as image:
        image.write(os.urandom(MIB))
        image.truncate(16 * MIB)
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        check=True,
        timeout=TIMEOUT,
    )


def test_there_are_some():
    assert len(BLOCKS) >= 5


def test_every_option_that_is_named_exists():
    text = BLOCK.sub(lambda block: "" if block["needs"] else block[0], PAGE.read_text())
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) <= OPTIONS


def test_the_man_page_is_up_to_date():
    subprocess.run([sys.executable, ROOT / "scripts" / "man_page", "--check"], check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str):
    command = [sys.executable, "-m", "homebound"]
    environment = {**os.environ, "_HOMEBOUND_COMPLETE": f"{shell}_source"}
    out = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=TIMEOUT)
    assert b"_HOMEBOUND_COMPLETE=" in out.stdout


def test_what_is_completed():
    environment = {**os.environ, "_HOMEBOUND_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": "homebound copy --res", "COMP_CWORD": "2"}
    command = [sys.executable, "-m", "homebound"]
    out = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=TIMEOUT)
    assert out.stdout == b"plain,--resume\n"
