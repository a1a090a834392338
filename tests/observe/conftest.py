"""A registry of its own, and a structlog as it is before anybody configured it, for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog
from prometheus_client import CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture(autouse=True)
def unconfigured_structlog() -> Iterator[None]:
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
