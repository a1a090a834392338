from __future__ import annotations

import contextvars

import pytest
from structlog.contextvars import bind_contextvars, get_contextvars

from sigmic_guard.observe import enter_task, leave_task


def test_the_task_s_id_is_bound_inside_the_block() -> None:
    bind_contextvars(request="r1")
    tokens = enter_task("one")
    assert get_contextvars() == {"request": "r1", "task_id": "one"}
    leave_task(tokens)
    assert get_contextvars() == {"request": "r1"}


def test_a_nested_block_gives_the_outer_one_s_id_back() -> None:
    outer = enter_task("outer")
    inner = enter_task("inner")
    assert get_contextvars() == {"task_id": "inner"}
    leave_task(inner)
    assert get_contextvars() == {"task_id": "outer"}
    leave_task(outer)
    assert get_contextvars() == {}


def test_a_host_s_own_task_id_comes_back() -> None:
    bind_contextvars(task_id="celery-7")
    leave_task(enter_task("ours"))
    assert get_contextvars() == {"task_id": "celery-7"}


def test_leaving_twice_does_nothing() -> None:
    tokens = enter_task("one")
    leave_task(tokens)
    leave_task(tokens)
    assert get_contextvars() == {}


def test_leaving_in_another_context_does_nothing() -> None:
    """Some frameworks tear a fixture or a dependency down in another task than set it up."""
    tokens = contextvars.copy_context().run(enter_task, "one")
    leave_task(tokens)
    assert get_contextvars() == {}


@pytest.mark.parametrize("bad", ["a\nb", "x" * 10_000, "\x1b[31mred"])
def test_an_id_cannot_break_a_line(bad: str) -> None:
    tokens = enter_task(bad)
    bound = get_contextvars()["task_id"]
    assert bound.isprintable()
    assert len(bound) <= 200
    leave_task(tokens)


async def test_a_block_is_left_in_the_task_that_entered_it() -> None:
    tokens = enter_task("one")
    assert get_contextvars() == {"task_id": "one"}
    leave_task(tokens)
    assert get_contextvars() == {}
