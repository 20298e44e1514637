"""Celery's prefork workers: a library with a Background, used before the fork and in each child."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("celery")

APP = """
import asyncio, os, homebound
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

app = Celery(
    "tasks",
    broker="filesystem://",
    backend="file://{folder}/results",
    broker_transport_options={{
        "data_folder_in": "{folder}/queue",
        "data_folder_out": "{folder}/queue",
    }},
    broker_connection_retry_on_startup=True,
)
background = homebound.Background("lib")

@background.sync
async def afetch(number):
    await asyncio.sleep(0)
    return [os.getpid(), number]

afetch(0)  # as the module is imported, in the parent of the workers

@app.task
def fetch(number):
    return afetch(number)

ended = []

@background.sync
async def astay():
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("cancelled")

@app.task(soft_time_limit=1)
def stay():
    try:
        astay()
    except SoftTimeLimitExceeded:
        afetch(0)  # this worker's home goes on
        return ended
"""
CLIENT = """
import os, sys
from tasks import fetch, stay

left = stay.delay().get(timeout=40, interval=0.05)
assert left == ["cancelled"], left
results = [fetch.delay(number).get(timeout=40, interval=0.05) for number in range(4)]
assert [number for _, number in results] == [0, 1, 2, 3], results
assert os.getpid() not in {pid for pid, _ in results}
print("done")
"""


@pytest.mark.slow
def test_prefork_workers(tmp_path: Path):
    for name in ("queue", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks.py").write_text(APP.format(folder=tmp_path))
    command = ["-m", "celery", "-A", "tasks", "worker", "--pool=prefork", "--concurrency=2"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    env = {**os.environ, "C_FORCE_ROOT": "1"}
    with subprocess.Popen(
        [sys.executable, *command, *quiet],
        cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as worker:  # fmt: skip
        try:
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(CLIENT)],
                cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False,
            )  # fmt: skip
        finally:
            worker.terminate()  # a warm shutdown: its children end, too
            output, _ = worker.communicate(timeout=40)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr + output
    assert worker.returncode == 0, output
