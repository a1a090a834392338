"""Tools for the tests of code that uses ``sigmic_guard``, and for this library's own.

- :class:`FakeSigmic`, the remote system in memory, with its faults and gates.
- :mod:`sigmic_guard.testing.plugin`, pytest fixtures.
- :func:`supervised`, for fixtures of your own; :func:`assert_no_orphans`, for tests of any kind.
- :mod:`sigmic_guard.testing.ledger_suite`, the conformance suite for ledgers.
"""

from sigmic_guard.testing.fake_api import FakeSigmic
from sigmic_guard.testing.fake_faults import HANG, LIE, LOST, SWAPPED, Answer, Call, Gate, Reaction
from sigmic_guard.testing.fake_stream import FakeStream
from sigmic_guard.testing.fake_task import FakeTask
from sigmic_guard.testing.orphans import assert_no_orphans
from sigmic_guard.testing.supervised import supervised

__all__ = [
    "HANG",
    "LIE",
    "LOST",
    "SWAPPED",
    "Answer",
    "Call",
    "FakeSigmic",
    "FakeStream",
    "FakeTask",
    "Gate",
    "Reaction",
    "assert_no_orphans",
    "supervised",
]
