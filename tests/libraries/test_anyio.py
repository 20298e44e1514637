"""anyio: task groups, cancel scopes, streams, threads, and homes under its scopes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable

    from homebound import IOThread

    Run = Callable[..., Any]

anyio = pytest.importorskip("anyio")
abc = pytest.importorskip("anyio.abc")
from_thread = pytest.importorskip("anyio.from_thread")
to_thread = pytest.importorskip("anyio.to_thread")


async def where() -> str:
    await anyio.sleep(0)
    return threading.current_thread().name


def test_run_with_our_loop_factory():
    async def main() -> bool:
        await anyio.sleep(0)
        return homebound.current_context() is homebound.main_context() is not None

    options = {"loop_factory": homebound.new_event_loop}
    assert anyio.run(main, backend="asyncio", backend_options=options)


def test_task_group(run: Run):
    async def serve(*, task_status: Any) -> None:
        task_status.started("ready")
        await anyio.sleep_forever()

    async def fail() -> None:
        await anyio.sleep(0)
        raise ValueError

    async def main() -> None:
        async with anyio.create_task_group() as group:
            assert await group.start(serve) == "ready"
            group.cancel_scope.cancel()
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                group.start_soon(fail)
        assert caught.value.subgroup(ValueError)

    run(main())


def test_cancel_scopes(run: Run):
    async def main() -> None:
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await anyio.sleep_forever()
        with anyio.move_on_after(0.001) as outer, anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)  # not disturbed
        assert not outer.cancelled_caught
        with anyio.move_on_after(0) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        await anyio.sleep(0)  # and nothing lingers

    run(main())


def test_streams(run: Run):
    async def upper(stream: Any) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data.upper())

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, upper)
            async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                await stream.send(b"hello")
                assert await stream.receive() == b"HELLO"
            group.cancel_scope.cancel()
        sender, receiver = anyio.create_memory_object_stream[int](1)
        async with sender, receiver, anyio.create_task_group() as group:
            group.start_soon(sender.send, 7)
            assert await receiver.receive() == 7

    run(main())


def test_threads(run: Run):
    def work() -> str:
        return f"{from_thread.run(where)}/{threading.current_thread().name}"

    async def main() -> None:
        assert (await to_thread.run_sync(work)).startswith("MainThread/AnyIO")

    run(main())


def test_portal():
    options = {"loop_factory": homebound.new_event_loop}
    with from_thread.start_blocking_portal("asyncio", options) as portal:
        assert portal.call(where) != "MainThread"

        async def has_home() -> bool:
            return homebound.current_context() is not None

        assert portal.call(has_home)


def test_scopes_around_other_homes(run: Run, io: IOThread, io2: IOThread):
    async def main() -> None:
        names: list[str] = []

        async def ask(home: IOThread) -> None:
            names.append(await home.spawn(where()))

        async with anyio.create_task_group() as group:
            group.start_soon(ask, io)
            group.start_soon(ask, io2)
        assert sorted(names) == ["io", "io2"]
        slow = io.spawn(anyio.sleep_forever())
        with anyio.move_on_after(0.01) as scope:
            await slow
        assert scope.cancelled_caught
        assert slow.cancelled()

    run(main())


def test_a_scope_in_each_home(run: Run, io: IOThread):
    async def bounded() -> str:
        with anyio.move_on_after(0.001):
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0)
        return threading.current_thread().name

    async def main() -> None:
        assert await asyncio.gather(bounded(), io.spawn(bounded())) == ["MainThread", "io"]
        async with homebound.on(io.context):
            assert await bounded() == "io"
        assert homebound.block_on(bounded()) == "MainThread"

    run(main())
