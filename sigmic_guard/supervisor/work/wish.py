"""What callers ask for, on its way through the library: :class:`Wish`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sigmic_guard.errors import ConfigurationError, bare
from sigmic_guard.lifecycle.values import check_paths, plain
from sigmic_guard.sigmic import check_message

if TYPE_CHECKING:
    from collections.abc import Mapping


class Wish:
    """A message and its options, as they were said; nobody reads them off the frames they pass."""

    __slots__ = ("message", "options")

    def __init__(self, message: str, options: Mapping[str, Any]) -> None:
        self.message = message
        self.options = options

    def __repr__(self) -> str:
        return f"<a wish with {len(self.options)} options>"


def make_follow_up(wish: Wish) -> Wish:
    """Return a follow-up whose message and ``files`` are plain and checked.

    :raises ConfigurationError: the API would refuse it, or it cannot be sent.
    """
    try:
        return _follow_up(wish)
    except ConfigurationError as error:
        problem = bare(error)
    raise problem


def _follow_up(wish: Wish) -> Wish:
    message, paths = plain(wish.message), check_paths("files", wish.options["files"])
    check_message(message, paths)
    return Wish(message, {"files": paths})
