"""What the tests of the client share."""

from __future__ import annotations

from tests.transports import transport  # noqa: F401 - a fixture
