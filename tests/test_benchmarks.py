"""Each benchmark runs, with as little work as possible. Its speed is not tested here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(file.stem for file in (ROOT / "benchmarks").glob("[a-z]*.py") if file.stem != "run")


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


def test_an_unknown_name_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no benchmark nothing" in done.stderr
