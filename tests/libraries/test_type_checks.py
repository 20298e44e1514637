"""pydantic and typeguard: a homebound Task is one of asyncio's to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]


async def wrong_values() -> list[object]:
    return [1, "task", asyncio.get_running_loop().create_future(), asyncio.sleep]


def test_pydantic(run: Run):
    pydantic = pytest.importorskip("pydantic")
    arbitrary = pydantic.ConfigDict(arbitrary_types_allowed=True)
    model = pydantic.create_model(
        "Model",
        __config__=arbitrary,
        plain=(asyncio.Task, ...),
        instance=(pydantic.InstanceOf[asyncio.Task], ...),
        future=(asyncio.Future | None, None),
        ours=(homebound.Task | None, None),
    )

    def call(task: Any) -> Any:
        return task

    call.__annotations__["task"] = asyncio.Task
    checked = pydantic.validate_call(config=arbitrary)(call)

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        value = model(plain=task, instance=task, future=task, ours=task)
        assert value.plain is value.instance is value.future is value.ours is task
        assert checked(task) is task
        for wrong in await wrong_values():
            for given in ({"plain": wrong, "instance": task}, {"plain": task, "instance": wrong}):
                with pytest.raises(pydantic.ValidationError, match="Task"):
                    model(**given)
            with pytest.raises(pydantic.ValidationError, match="Task"):
                checked(wrong)
        await task

    run(main())


def test_typeguard(run: Run):
    typeguard = pytest.importorskip("typeguard")

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        kinds: list[Any] = [asyncio.Task, asyncio.Task[None], asyncio.Future, homebound.Task]
        for kind in kinds:
            assert typeguard.check_type(task, kind) is task
            assert typeguard.check_type(task, kind | None) is task
        assert typeguard.check_type([task], list[asyncio.Task[None]]) == [task]
        for wrong in await wrong_values():
            with pytest.raises(typeguard.TypeCheckError, match="Task"):
                typeguard.check_type(wrong, asyncio.Task)
        await task

    run(main())
