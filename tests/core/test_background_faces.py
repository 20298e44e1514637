"""Background.sync: the synchronous face of functions, iterators, context managers and classes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

import homebound
from homebound import Background, ContextClosed, IOThread, WouldDeadlock, block_on
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def background() -> Iterator[Background]:
    with Background("lib") as made:
        yield made


# Functions.


def test_a_function(background: Background):
    @background.sync
    async def double(number: int, *, plus: int = 0) -> int:
        """Double it."""
        await asyncio.sleep(0)
        return 2 * number + plus

    assert double(20, plus=2) == 42
    assert (double.__name__, double.__doc__) == ("double", "Double it.")
    assert str(inspect.signature(double)) == "(number: 'int', *, plus: 'int' = 0) -> 'int'"
    assert not inspect.iscoroutinefunction(double)
    with pytest.raises(TypeError, match="unexpected keyword argument 'minus'"):
        double(1, minus=1)  # type: ignore[call-arg]


def test_a_method(background: Background):
    class Client:
        def __init__(self) -> None:
            self.asked = 0

        async def aget(self, path: str) -> str:
            await asyncio.sleep(0)
            self.asked += 1
            return path.upper()

        get = background.sync(aget)

    client = Client()
    assert client.get("/a") == "/A"
    assert client.asked == 1


def test_a_function_that_returns_an_awaitable(background: Background):
    def begin(number: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.get_loop().call_soon(future.set_result, number)
        return future

    assert background.sync(begin)(3) == 3


def test_contextvars_go_along(background: Background):
    @background.sync
    async def look() -> str:
        return variable.get()

    token = variable.set("the caller's")
    try:
        assert look() == "the caller's"
    finally:
        variable.reset(token)


@pytest.mark.parametrize("wrong", [3, None, "text"])
def test_what_has_no_face(background: Background, wrong: Any):
    with pytest.raises(TypeError, match=f"async function, class, iterator or .*, got {wrong!r}"):
        background.sync(wrong)


def test_a_coroutine_has_none(background: Background):
    coro = asyncio.sleep(0)
    with pytest.raises(TypeError, match=r"the coroutine sleep\(\); Background.block_on waits"):
        background.sync(coro)  # type: ignore[call-overload]
    coro.close()


# Iterators.


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def numbers(background: Background, ended: list[str]) -> Any:
    @background.sync
    async def numbers(limit: int) -> AsyncGenerator[int, str | None]:
        try:
            for number in range(limit):
                sent = yield number
                if sent is not None:
                    ended.append(sent)
        except LookupError:
            ended.append("thrown")
            yield -1
        finally:
            await asyncio.sleep(0)
            ended.append(f"closed in {threading.current_thread().name}")

    return numbers


def test_a_generator(numbers: Any, ended: list[str]):
    assert inspect.signature(numbers).parameters.keys() == {"limit"}
    assert list(numbers(3)) == [0, 1, 2]
    assert ended == ["closed in lib"]
    assert list(numbers(0)) == []


def test_a_generators_methods(numbers: Any, ended: list[str]):
    generator = numbers(9)
    assert next(generator) == 0
    assert generator.send("sent") == 1
    assert generator.throw(LookupError) == -1
    generator.close()
    assert ended == ["sent", "thrown", "closed in lib"]
    with pytest.raises(StopIteration):
        next(generator)
    generator.close()  # a no-op


def test_an_error_ends_a_generator(background: Background):
    @background.sync
    async def fail() -> AsyncGenerator[int]:
        yield 1
        message = "wrong"
        raise LookupError(message)

    generator = fail()
    assert next(generator) == 1
    with pytest.raises(LookupError, match="wrong"):
        next(generator)
    assert list(generator) == []


def test_a_loop_that_is_left_closes_the_generator(numbers: Any, ended: list[str]):
    with contextlib.closing(numbers(9)) as generator:
        for number in generator:
            if number == 1:
                break
    assert ended == ["closed in lib"]


def test_one_that_is_dropped_is_closed_at_its_home(background: Background):
    closed = threading.Event()
    closer: list[str] = []

    @background.sync
    async def dropped() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closer.append(homebound.running_context().name)
            closed.set()

    generator = dropped()
    next(generator)
    del generator
    gc.collect()
    closed.wait()
    assert closer == ["lib"]


def test_one_task_makes_all_steps(background: Background):
    @background.sync
    async def steps() -> AsyncGenerator[tuple[object, str]]:
        async with asyncio.timeout(30):  # which is left in the task that entered it
            for number in range(3):
                yield asyncio.current_task(), variable.get()
                variable.set(f"set in {number}")

    seen = list(steps())
    assert len({task for task, _ in seen}) == 1
    assert [value for _, value in seen] == ["unset", "set in 0", "set in 1"]


def test_an_iterator_that_is_no_generator(background: Background):
    class Countdown:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Self:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(background.sync(Countdown())) == [2, 1, 0]


def test_two_threads_in_one_generator(background: Background):
    inside, go_on = threading.Event(), asyncio.Event()

    @background.sync
    async def slow() -> AsyncGenerator[int]:
        inside.set()
        await go_on.wait()
        yield 1

    generator = slow()
    values: list[int] = []
    thread = threading.Thread(target=lambda: values.extend(generator))
    thread.start()
    inside.wait()
    with pytest.raises(ValueError, match="generator already executing"):
        next(generator)
    background.call(go_on.set)
    thread.join()
    assert values == [1]


def test_a_generator_that_asks_itself(background: Background):
    @background.sync
    async def itself() -> AsyncGenerator[int]:
        yield next(generator)

    generator = itself()
    with pytest.raises(ValueError, match="generator already executing"):
        next(generator)


def test_a_generator_whose_background_stops(background: Background, numbers: Any, ended: list[str]):
    generator = numbers(9)
    next(generator)
    background.stop()
    assert ended == ["closed in lib"]
    background.start()
    with pytest.raises(ContextClosed):
        next(generator)
    assert list(numbers(2)) == [0, 1]


def test_a_step_in_a_thread_that_may_not_wait(numbers: Any, io: IOThread, ended: list[str]):
    generator = numbers(3)
    assert next(generator) == 0

    async def step() -> None:
        next(generator)

    with pytest.raises(WouldDeadlock):
        block_on(step(), io)
    assert list(generator) == [1, 2]  # nothing was lost
    assert ended == ["closed in lib"]


def test_a_step_while_its_background_stops(background: Background):
    inside = threading.Event()
    raised: list[BaseException] = []

    @background.sync
    async def slow() -> AsyncGenerator[int]:
        inside.set()
        await asyncio.sleep(60)
        yield 1

    def step() -> None:
        try:
            next(slow())
        except ContextClosed as error:
            raised.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    inside.wait()
    background.stop()
    thread.join()
    assert "was stopped before the call was done" in str(raised[0])


def test_a_step_that_its_home_cannot_begin(background: Background):
    """The session's task is cancelled before it takes the call, which is posted already."""
    raised: list[BaseException] = []

    @background.sync
    async def numbers() -> AsyncGenerator[int]:
        yield 1

    async def cancel_all() -> None:
        generator = numbers()  # its first step is posted behind this one
        try:
            asyncio.get_running_loop().call_soon(cancel_others)
            next(generator)
        except (ContextClosed, asyncio.CancelledError) as error:
            raised.append(error)

    def cancel_others() -> None:
        for task in asyncio.all_tasks():
            if task.get_name().startswith("lib: "):
                task.cancel()

    background.call(cancel_all)
    assert len(raised) == 1


# Context managers.


@pytest.fixture
def session(background: Background, ended: list[str]) -> Any:
    @background.sync
    @contextlib.asynccontextmanager
    async def session(name: str) -> AsyncIterator[str]:
        async with asyncio.timeout(30):
            ended.append("entered")
            try:
                yield name.upper()
            except LookupError:
                ended.append("suppressed")
            finally:
                await asyncio.sleep(0)
                ended.append(f"left in {threading.current_thread().name}")

    return session


def test_a_context_manager(session: Any, ended: list[str]):
    assert inspect.signature(session).parameters.keys() == {"name"}
    with session("it") as value:
        assert value == "IT"
        assert ended == ["entered"]
    assert ended == ["entered", "left in lib"]


def test_errors_of_the_block(session: Any, ended: list[str]):
    with session("it"):
        raise LookupError
    assert ended == ["entered", "suppressed", "left in lib"]
    error = ValueError("from the block")
    with pytest.raises(ValueError, match="from the block") as caught, session("it"):
        raise error
    assert caught.value is error


def test_an_error_as_it_is_entered(background: Background):
    @background.sync
    @contextlib.asynccontextmanager
    async def fail() -> AsyncIterator[None]:
        message = "wrong"
        raise LookupError(message)
        yield

    with pytest.raises(LookupError, match="wrong"), fail():
        pass


def test_one_that_is_entered_when_its_background_stops(
    background: Background, session: Any, ended: list[str]
):
    manager = session("it")
    manager.__enter__()
    background.stop()
    assert ended == ["entered", "left in lib"]
    with pytest.raises(ContextClosed):
        manager.__exit__(None, None, None)


def test_an_exit_in_a_thread_that_may_not_wait(session: Any, io: IOThread, ended: list[str]):
    manager = session("it")
    manager.__enter__()

    async def leave() -> None:
        manager.__exit__(None, None, None)

    with pytest.raises(WouldDeadlock):
        block_on(leave(), io)
    until(lambda: len(ended) == 2)
    assert ended == ["entered", "left in lib"]  # all the same, without a wait


def test_a_lock_of_asyncio_for_threads(background: Background):
    lock = background.sync(background.call(asyncio.Lock))
    inside = most = 0

    def use() -> None:
        nonlocal inside, most
        for _ in range(20):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# Classes.


class Client:
    """A client, for example."""

    def __init__(self, host: str, *, port: int = 80) -> None:
        self.loop = asyncio.get_running_loop()  # as aiohttp's does
        self.address = f"{host}:{port}"
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed = True

    async def get(self, path: str) -> str:
        """Get it."""
        await asyncio.sleep(0)
        return self.address + path

    async def pages(self) -> AsyncIterator[str]:
        for number in range(2):
            yield await self.get(f"/{number}")

    def home(self) -> str:
        return homebound.running_context().name

    async def configured(self) -> Self:
        return self


def test_a_class(background: Background):
    face = background.sync(Client)
    assert (face.__name__, face.__doc__) == ("Client", "A client, for example.")
    assert str(inspect.signature(face)) == "(host: 'str', *, port: 'int' = 80) -> 'None'"
    with face("example.org", port=8080) as client:
        assert type(client) is face
        assert client.get("/a") == "example.org:8080/a"
        assert client.get.__doc__ == "Get it."
        assert list(client.pages()) == ["example.org:8080/0", "example.org:8080/1"]
        assert client.home() == "lib"
        assert client.configured() is client
        assert (client.address, client.closed) == ("example.org:8080", False)
    assert client.closed
    with pytest.raises(AttributeError, match="'Client' object has no attribute 'put'"):
        client.put("/a")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'host'"):
        face()
