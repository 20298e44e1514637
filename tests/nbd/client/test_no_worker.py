"""No thread when the client wants one to connect with: the system has none left, or it dies."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound._workers.worker import Worker
from homebound.nbd import ConnectError, NBDDisk
from homebound.nbd._client import client
from homebound.nbd._client.dial import Attempt

from ...locks.interruptions import no_more_threads
from .servers import SIZE, serving

if TYPE_CHECKING:
    from pathlib import Path


def test_connecting_fails_and_says_why(tmp_path: Path):
    async def main() -> None:
        uri = f"nbd+unix:///?socket={tmp_path / 'socket'}"
        with no_more_threads(), pytest.raises(ConnectError, match="can't start new thread"):
            await NBDDisk.connect(uri)

    homebound.run(main())


@pytest.mark.parametrize("dies_in", [Worker, Attempt])
def test_connecting_fails_when_the_worker_dies(
    dies_in: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before it begins to connect, or meanwhile."""

    def die(_: object) -> None:
        raise KeyboardInterrupt("struck")

    async def main() -> None:
        uri = f"nbd+unix:///?socket={tmp_path / 'socket'}"
        with pytest.raises(ConnectError, match=r"struck|has lost a worker"):
            await asyncio.wait_for(NBDDisk.connect(uri), 30)

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(dies_in, "run", die)
    homebound.run(main())


def test_a_lost_connection_is_made_again_when_there_are_threads(
    rude: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client, "_IDLE", 0.0)  # the worker that has connected ends

    async def main() -> None:
        await rude.start(serving(bytearray(b"x" * SIZE)))
        with await NBDDisk.connect(rude.uri, reconnect_delay=3600) as disk:
            while any(thread.name.startswith("nbd-connect") for thread in threading.enumerate()):
                await asyncio.sleep(0.001)
            await rude.stop()
            await rude.start(serving(bytearray(b"x" * SIZE)))
            with no_more_threads():
                read = asyncio.create_task(disk.read(0, 1))
                while disk.interruptions == 0:
                    await asyncio.sleep(0)
                for _ in range(20):  # in these the first try has failed
                    await asyncio.sleep(0)
            assert await read == b"x"
        await rude.stop()

    homebound.run(main())
