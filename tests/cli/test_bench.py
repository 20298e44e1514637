"""`homebound bench`, from outside; and its percentiles."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import MemoryDisk
from homebound.cli._bench import BenchJob, Load
from homebound.cli._latency import Latencies

from .programs import fail, succeed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mode", ["read", "write", "mixed"])
def test_figures_in_json(image: Path, mode: str):
    before = image.read_bytes()
    # As deep as this, requests of both kinds are made even if there is time for one of each task.
    out = succeed("bench", image, f"--{mode}", "--seconds", "0.2", "--json", "--depth", "64")
    figures = json.loads(out)
    assert (figures["mode"], figures["depth"], figures["block_size"]) == (mode, 64, 4096)
    kinds = ["read", "write"] if mode == "mixed" else [mode]
    for kind in kinds:
        taken = figures[kind]["latency_us"]
        assert figures[kind]["requests"] > 0
        assert 0 < taken["p50"] <= taken["p90"] <= taken["p99"] <= taken["p99.9"] <= taken["max"]
    assert ("write" in figures, "read" in figures) == (mode != "read", mode != "write")
    assert (image.read_bytes() == before) == (mode == "read")


def test_each_task_makes_a_request_even_if_its_time_is_over():
    async def main() -> int:
        with MemoryDisk(1 << 20) as disk:
            load = Load(BenchJob("memory:1M", depth=7, seconds=0.0), disk)
            await load.run()
        return load.results["read"].latencies.count

    assert homebound.run(main()) == 7


def test_lines_for_people(image: Path):
    out = succeed("bench", image, "--mixed", "--seconds", "0.1", "--block-size", "64K")
    assert [line.split()[0] for line in out.splitlines()] == ["read", "write"]
    assert all(word in out for word in ("IOPS", "iB/s", "p50", "p90", "p99", "p99.9", "max"))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["memory:4K", "--block-size", "8K"], 1, "has 4096 bytes, less than one block of 8192"),
        (["nothing"], 1, "No such file or directory"),
        (["memory:1M", "--depth", "4096", "--block-size", "1M"], 2, "more than 1 GiB of memory"),
        (["memory:1M", "--depth", "0"], 2, "0 is not in the range"),
        (["memory:1M", "--block-size", "no"], 2, "'no' is not a size"),
        (["memory:1M", "--seconds", "nan"], 2, "'nan' is not a time"),
        (["memory:1M", "--seconds", "inf"], 2, "'inf' is not a time"),
        (["memory:1M", "--seconds", "0"], 2, "--seconds: 0.0 is less than 0.01"),
    ],
)
def test_what_cannot_be_measured(arguments: list[str], code: int, text: str):
    assert text in fail("bench", *arguments, code=code)


@given(
    st.lists(st.floats(1e-7, 100), min_size=1, max_size=300),
    st.sampled_from([0.1, 50, 90, 99, 99.9, 100]),
)
def test_percentiles_are_within_a_percent(seconds: list[float], percent: float):
    latencies = Latencies()
    for each in seconds:
        latencies.add(each)
    index = max(0, -int(-len(seconds) * percent // 100) - 1)
    exact = sorted(seconds)[index]
    assert exact * 0.99 <= latencies.percentile(percent) <= exact * 1.016 + 1e-9
    assert latencies.longest == max(seconds)
    assert latencies.mean == pytest.approx(sum(seconds) / len(seconds))


def test_no_latencies():
    latencies = Latencies()
    assert (latencies.percentile(50), latencies.mean, latencies.longest) == (0, 0, 0)


def test_many_latencies_take_little_room():
    latencies = Latencies()
    chosen = random.Random(1)
    for _ in range(100_000):
        latencies.add(chosen.lognormvariate(-8, 2))
    assert len(latencies._buckets) < 128 * 40
