"""What is raised while a reply is read, as for lack of memory, loses the connection, no request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from homebound.nbd import ConnectionLost, NBDDisk
from homebound.nbd._client.channel import Channel
from homebound.nbd._protocol.reply_reader import ReplyReader

from .servers import on_server

if TYPE_CHECKING:
    from collections.abc import Callable

PLACES: list[tuple[type, str]] = [
    (ReplyReader, "_take_whole"),  # before one is taken
    (ReplyReader, "_read"),  # after some have ended
    (Channel, "_end"),  # before they are told
]


@pytest.fixture(params=PLACES, ids=lambda place: place[1])
def fail_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Have one of the places raise at its next call."""
    kind, name = request.param
    method: Any = getattr(kind, name)
    left: list[None] = []

    def stumble(self: Any, argument: Any) -> Any:
        if not left:
            return method(self, argument)
        left.clear()
        if name == "_read":
            method(self, argument)
        raise MemoryError

    monkeypatch.setattr(kind, name, stumble)
    return lambda: left.append(None)


def test_the_requests_are_repeated(fail_once: Callable[[], None]):
    async def main(uri: str) -> None:
        said: list[type] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, about: said.append(type(about["exception"])))
        async with await NBDDisk.connect(uri, reconnect_delay=20) as disk:
            await disk.write(0, b"abc")
            fail_once()
            reads = [disk.read(0, 3) for _ in range(20)]
            writes = [disk.write(8 * n, b"%2d" % n) for n in range(1, 20)]
            assert (await asyncio.gather(*reads, *writes))[:20] == [b"abc"] * 20
            assert await disk.read(8 * 19, 2) == b"19"
        assert said == [MemoryError]

    on_server(main)


def test_the_requests_fail(fail_once: Callable[[], None]):
    async def main(uri: str) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        async with await NBDDisk.connect(uri) as disk:
            fail_once()
            results = await asyncio.gather(
                *(disk.write(0, b"x") for _ in range(20)), return_exceptions=True
            )
            assert {type(each) for each in results} == {ConnectionLost}
            with pytest.raises(ConnectionLost, match="MemoryError interrupted"):
                raise results[0]  # type: ignore[misc]

    on_server(main)
