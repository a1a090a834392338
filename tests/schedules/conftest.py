"""Quiet: what thousands of supervisors log says nothing here, and takes time."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    configured, before = structlog.is_configured(), structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    if configured:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()  # else our lines went past `logging` in all tests to come
