"""What the tests of vCPUs share: an `execute` that computes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from homebound import VCPU
from homebound._vcpu.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator


class Guest:
    """Computes until it is interrupted, and says what it does."""

    def __init__(self) -> None:
        self.rounds = 0
        self.inside = False
        self.began = threading.Event()  # set at each round

    def __call__(self, vcpu: VCPU) -> None:
        self.inside = True
        self.rounds += 1
        self.began.set()
        while not vcpu.interrupt_requested:
            pass
        self.inside = False

    def wait_inside(self) -> None:
        """Until the next round has begun."""
        self.began.clear()
        assert self.began.wait(20)


@pytest.fixture(autouse=True)
def _gate_checks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "checked", True)


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def vcpu(guest: Guest) -> Iterator[VCPU]:
    """A vCPU in guest code."""
    with VCPU(0, guest) as cpu:
        assert guest.began.wait(20)
        yield cpu
