"""What anyio and trio raise where a scope was left behind is told apart, whatever its text says."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import anyio
import pytest

from sigmic_guard.integrations.asgi.middleware import _is_of_a_left_scope
from tests.backends import ASYNCIO, TRIO_VIRTUAL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

pytestmark = pytest.mark.backends(ASYNCIO, TRIO_VIRTUAL)


async def holds_a_scope() -> AsyncGenerator[int]:
    with anyio.CancelScope():
        yield 1


async def holds_a_group() -> AsyncGenerator[int]:
    async with anyio.create_task_group():
        yield 1


async def leaves_a_scope(generator: AsyncGenerator[int]) -> None:
    with anyio.CancelScope():
        await anext(generator)


async def leaves_a_time_out(generator: AsyncGenerator[int]) -> None:
    with anyio.move_on_after(10):
        await anext(generator)


async def leaves_a_group(generator: AsyncGenerator[int]) -> None:
    async with anyio.create_task_group():
        await anext(generator)


async def raised_by(
    leave: Callable[[AsyncGenerator[int]], Awaitable[None]], generator: AsyncGenerator[int]
) -> BaseException:
    """Leave something that a generator is still in, in a task of its own; return what comes out."""
    found: list[BaseException] = []

    async def task() -> None:
        try:
            await leave(generator)
        except BaseException as error:
            found.append(error)
        finally:
            with suppress(BaseException):
                await generator.aclose()

    with suppress(BaseException):
        async with anyio.create_task_group() as group:
            group.start_soon(task)
    [error] = found
    return error


@pytest.mark.parametrize("inner", [holds_a_scope, holds_a_group])
@pytest.mark.parametrize("leave", [leaves_a_scope, leaves_a_time_out, leaves_a_group])
async def test_a_scope_that_cannot_be_left(
    leave: Callable[[AsyncGenerator[int]], Awaitable[None]],
    inner: Callable[[], AsyncGenerator[int]],
) -> None:
    error = await raised_by(leave, inner())
    assert _is_of_a_left_scope(error)
    error.args = ("whatever a later version says",)
    assert _is_of_a_left_scope(error)


async def test_an_error_of_the_application() -> None:
    """Nor where it says the same, or comes out of a scope and a task group."""
    told: list[Exception] = []
    for text in "it broke", "Attempted to exit a cancel scope that is not the current one":
        try:
            with anyio.CancelScope():
                async with anyio.create_task_group():
                    raise RuntimeError(text)
        except ExceptionGroup as group:
            told += group.exceptions
    assert len(told) == 2
    assert not any(map(_is_of_a_left_scope, [*told, RuntimeError("cancel scope"), OSError()]))
