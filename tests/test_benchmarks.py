"""Each benchmark runs, with as little work as possible. Its speed is not tested here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APART = {"run", "disk_kinds", "floods"}  # which are not names for `python -m benchmarks`
FILES = sorted({file.stem for file in (ROOT / "benchmarks").glob("[a-z]*.py")} - APART)

# fio takes most of a second for a few requests, and so do programs that are started for each sample
SLOW = {"disks": pytest.mark.timeout(180), "nbd_client": pytest.mark.timeout(180)}
NEEDED = {"disks": "fio", "nbd_client": "qemu-nbd"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW[name]) if name in SLOW else name for name in FILES]
)
def test_runs(name: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", name, "--rounds", "1", "--scale", "0.001"]
    # Warnings of the peers' loops are not ours to prevent, so this process's filters stay here.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(
        [*command, "--json", str(file)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(file.read_text())
    if name in NEEDED and f"skipped: there is no {NEEDED[name]}" in done.stdout:
        pytest.skip(f"there is no {NEEDED[name]}, or none with NBD")
    assert results["cases"]
    for case in results["cases"]:
        variants = case["variants"]
        assert {"homebound", "asyncio"} & set(variants)
        assert all(each["median_s"] > 0 for each in variants.values())


def disk_kinds(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.disk_kinds", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("kind", "lines"), [("tmpfs", 4), ("sparse", 1)])
def test_kinds_of_disks(kind: str, lines: int) -> None:
    for program in ("qemu-nbd", "nbdkit", "nbdcopy", "fio"):
        if shutil.which(program) is None or sys.platform != "linux":
            pytest.skip(f"there is no {program}, or none with NBD")
    done = disk_kinds(kind, "1", "0.001")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.count("homebound") for line in done.stdout.splitlines()] == [1] * lines


def floods(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.floods", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="it reads another process's clock")
@pytest.mark.timeout(180)
def test_floods() -> None:
    done = floods("memory", "2", "1", "0.01")
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert kinds[:2] == ["memory, 2 x none", "memory, 2 x option"]
    assert len(kinds) == 16


def test_an_unknown_flood_is_refused() -> None:
    done = floods("memory", "1", "1", "1", "rain")
    assert done.returncode == 1
    assert "no such disk or kind; there are memory, tmpfs" in done.stderr


def test_an_unknown_kind_is_refused() -> None:
    done = disk_kinds("floppy")
    assert done.returncode == 1
    assert "no kind 'floppy'; there are tmpfs, ext4" in done.stderr


def test_an_unknown_name_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no benchmark nothing" in done.stderr
