"""What type checkers make of calls: for mypy and pyright (scripts/typed_examples), not to run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any, Protocol, Self, assert_type

import homebound
from homebound import AioContext, Background, IOThread, IOThreadPool, Task, WorkerPool


async def text(number: int) -> str:
    return str(number)


def length(of: str, *, twice: bool = False) -> int:
    return len(of) * (2 if twice else 1)


async def tasks_keep_the_type_of_their_coroutine(context: AioContext, pool: IOThreadPool) -> None:
    task = context.spawn(text(1), name="one")
    assert_type(task, Task[str])
    assert_type(await task, str)
    assert_type(task.result(), str)
    assert_type(homebound.create_task(text(1)), Task[str])
    with IOThread() as io:
        assert_type(io.spawn(text(1)), Task[str])
        assert_type(homebound.create_task(text(1), home=io), Task[str])
        async with homebound.TaskGroup() as group:
            assert_type(group.create_task(text(1), home=io), Task[str])
    assert_type(pool.spawn(text(1), name="one"), Task[str])
    assert_type(Task(text(1), home=context), Task[str])


async def tasks_are_asyncio_futures(io: IOThread) -> None:
    first, second = io.spawn(text(1)), io.spawn(text(2))
    assert_type(await asyncio.gather(first, second), tuple[str, str])
    assert_type(await asyncio.shield(first), str)
    done, _ = await asyncio.wait([first, second])
    assert_type(done, set[Task[str]])
    first.add_done_callback(heard)


def heard(task: Task[str]) -> None:
    assert_type(task.result(), str)


def waiting_keeps_the_type(io: IOThread) -> None:
    assert_type(homebound.block_on(text(1), io), str)
    assert_type(homebound.block_on(io.spawn(text(1)), timeout=1), str)
    assert_type(homebound.run(text(1)), str)


async def workers_know_the_parameters(pool: WorkerPool) -> None:
    assert_type(await homebound.to_worker(length, "one", twice=True), int)
    assert_type(await homebound.to_worker(sum, [1, 2]), int)
    assert_type(await homebound.run_in(pool, length, "one"), int)
    assert_type(await homebound.run_in(ThreadPoolExecutor(), length, of="one"), int)
    assert_type(pool.submit(length, "one"), Future[int])
    await homebound.to_worker(length, 1)  # type: ignore[arg-type]
    await homebound.run_in(pool, length, "one", thrice=True)  # type: ignore[call-arg]


def places() -> None:
    assert_type(homebound.current_task(), Task[Any] | None)
    assert_type(homebound.current_context(), AioContext | None)
    assert_type(homebound.running_context(), AioContext)


async def locks_are_context_managers(io: IOThread) -> None:
    async with AsyncExitStack() as stack:
        assert_type(await stack.enter_async_context(homebound.Lock()), None)
        assert_type(await stack.enter_async_context(homebound.Semaphore()), None)
        assert_type(await stack.enter_async_context(homebound.BoundedSemaphore()), None)
        assert_type(await stack.enter_async_context(homebound.Condition()), None)
        assert_type(await stack.enter_async_context(homebound.RWLock().read()), None)
        assert_type(await stack.enter_async_context(homebound.Barrier(1)), int)
        assert_type(await stack.enter_async_context(homebound.on(io)), None)
        assert_type(await stack.enter_async_context(io), IOThread)
        assert_type(await stack.enter_async_context(homebound.TaskGroup()), homebound.TaskGroup)
        assert_type(stack.push_async_exit(homebound.Lock()), homebound.Lock)
    with ExitStack() as threads:
        assert_type(threads.enter_context(homebound.Lock()), None)
        assert_type(threads.enter_context(homebound.RWLock().write()), None)


async def threads_are_places(io: IOThread) -> None:
    await homebound.move_to(io)
    async with homebound.on(io):
        pass
    homebound.wait_while(bool, io)


def what_is_refused_is_no_parameter(io: IOThread) -> None:
    io.spawn(text, 1)  # type: ignore[arg-type]


def options_are_known() -> None:
    IOThreadPool(2, poll_max_ns=5)
    IOThreadPool(2, poll_max=5)  # type: ignore[call-arg]
    WorkerPool(2, name="two")
    assert_type(IOThread().start(), IOThread)
    with IOThreadPool(2) as pool:
        assert_type(len(pool), int)
        assert_type(list(pool), list[IOThread])


async def numbers(limit: int) -> AsyncGenerator[int, str]:
    for number in range(limit):
        yield number


def lines() -> AsyncIterator[str]:
    raise NotImplementedError


@asynccontextmanager
async def session(name: str) -> AsyncIterator[bytes]:
    yield name.encode()


def a_background_keeps_types(background: Background) -> None:
    assert_type(background.call(text, 1), str)
    assert_type(background.call(length, "a", twice=True), int)
    assert_type(background.block_on(text(1), timeout=1), str)
    assert_type(background.spawn(text(1)), Task[str])
    with background as started:
        assert_type(started, Background)
    assert_type(background.start(), Background)


def a_synchronous_face_keeps_types(background: Background) -> None:
    assert_type(background.sync(text)(1), str)
    assert_type(background.sync(numbers)(3), Generator[int, str, None])
    assert_type(background.sync(lines)(), Iterator[str])
    assert_type(background.sync(numbers(3)), Generator[int, str, None])
    assert_type(background.sync(lines()), Iterator[str])
    with background.sync(session)("a") as entered, background.sync(session("a")) as again:
        assert_type(entered, bytes)
        assert_type(again, bytes)
    background.sync(text)("1")  # type: ignore[arg-type]
    background.sync(numbers)()  # type: ignore[call-arg]


class Client:
    background = Background("client")

    async def aget(self, path: str) -> bytes:
        return path.encode()

    get = background.sync(aget)


def a_method_s_face_keeps_types(client: Client) -> None:
    assert_type(client.get("/a"), bytes)


class TheirClient:
    def __init__(self, url: str) -> None:
        self.url = url

    async def get(self, path: str, *, limit: int = 10) -> bytes:
        return path.encode()[:limit]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass


class Store:
    def __init__(self, background: Background) -> None:
        self.client = background.call(TheirClient, "url")
        self.get = background.sync(self.client.get)


def attributes_are_faces_with_types(store: Store) -> None:
    assert_type(store.client, TheirClient)
    assert_type(store.get("/a"), bytes)
    assert_type(store.get("/a", limit=3), bytes)
    store.get(1)  # type: ignore[arg-type]
    store.get("/a", most=3)  # type: ignore[call-arg]


class ClientFace(Protocol):
    def get(self, path: str, *, limit: int = 10) -> bytes: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> bool | None: ...


class Lines:
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        return ""


def a_class_s_face_has_the_types_it_is_given(background: Background) -> None:
    face: Callable[[str], ClientFace] = background.sync(TheirClient)
    with face("url") as client:
        assert_type(client, ClientFace)
        assert_type(client.get("/a", limit=3), bytes)
        client.get(1)  # type: ignore[arg-type]
    face(1)  # type: ignore[arg-type]
    background.sync(TheirClient)(1)  # type: ignore[arg-type]  # mypy alone sees it
    assert_type(background.sync(TheirClient)("url"), Any)
    assert_type(background.sync(Lines)(), Any)  # a class, although it makes iterators
    wrong: Callable[[int], ClientFace] = background.sync(TheirClient)  # type: ignore[arg-type]
    wrong(1)
