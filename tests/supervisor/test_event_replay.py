"""What a consumer was given before, told from what is new; and what remembering that costs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sigmic_guard.supervisor import replay
from sigmic_guard.supervisor.replay import Replay


def say(memory: Replay, text: str, **more: Any) -> str:
    """Sort one piece of text, and return what of it is new."""
    data = {"text": text, **more}
    return "".join(
        part["text"] for part, replayed in memory.sort("content", data, "") if not replayed
    )


def is_new(memory: Replay, kind: str, raw: str) -> bool:
    ((_, replayed),) = memory.sort(kind, msgspec.json.decode(raw), raw)
    return not replayed


def allocated(call: Callable[[], object]) -> int:
    """How many bytes a call allocates, at its peak."""
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    call()
    return tracemalloc.get_traced_memory()[1] - before


def kept(call: Callable[[], object]) -> int:
    """How many bytes a call leaves behind that were allocated here or in ``replay.py``."""
    tracemalloc.start(5)
    try:
        call()
        left = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    ours = [
        tracemalloc.Filter(inclusive=True, filename_pattern=name, all_frames=True)
        for name in (replay.__file__, __file__)
    ]
    return sum(trace.size for trace in left.filter_traces(ours).traces)


class TestText:
    @given(
        text=st.text("ab", max_size=40),
        cuts=st.lists(st.lists(st.integers(0, 40)), min_size=1, max_size=4),
        ends=st.lists(st.integers(0, 40), min_size=3, max_size=3),
    )
    def test_any_pieces(self, text: str, cuts: list[list[int]], ends: list[int]) -> None:
        """Whatever pieces each connection brings the text in, up to where, the new is the whole."""
        memory, new = Replay(), ""
        for number, edges in enumerate(cuts):
            last = number == len(cuts) - 1
            part = text if last else text[: ends[number]]
            places = sorted({0, len(part), *(edge for edge in edges if edge < len(part))})
            if number:
                memory.reconnected()
            new += "".join(say(memory, part[a:b]) for a, b in pairwise(places))
        assert new == text
        assert memory.said == text

    def test_the_whole_after_its_parts(self) -> None:
        """The complete text that is no part of itself is no new text; another one is."""
        memory = Replay()
        assert say(memory, "ab") + say(memory, "cd") == "abcd"
        assert say(memory, "abcd", isPartial=False) == ""
        assert say(memory, "abcx", isPartial=False) == "abcx"

    def test_another_text_than_before(self) -> None:
        """What a new connection says differently is new from there."""
        memory = Replay()
        say(memory, "abc")
        memory.reconnected()
        assert say(memory, "ab") == ""
        assert say(memory, "x") == "x"
        assert say(memory, "y") == "y"

    def test_the_rest_of_an_answer(self) -> None:
        """Of an answer that goes on where the text ended, the rest is left."""
        memory = Replay()
        say(memory, "ab")
        assert memory.rest("abc") == "c"
        assert [memory.rest(answer) for answer in ("ab", "a", "xbc", "", None)] == [""] * 5

    def test_after_a_follow_up(self) -> None:
        """The answer to a follow-up is new, also where it is the same as the one before."""
        memory = Replay()
        assert is_new(memory, "history_message", '{"id": "m-1"}')
        assert is_new(memory, "done", '{"finalResponse": "42"}')
        assert say(memory, "42") == "42"
        memory.reconnected(new_turn=True)
        assert not is_new(memory, "history_message", '{"id": "m-1", "now": "more"}')
        assert say(memory, "42") == "42"
        assert is_new(memory, "done", '{"finalResponse": "42"}')
        assert memory.rest("42!") == "!"


class TestEvents:
    def test_as_often_as_before(self) -> None:
        """An event is repeated as often as any one connection gave it, and then new."""
        memory = Replay()
        assert [is_new(memory, "thought", "1") for _ in range(2)] == [True, True]
        memory.reconnected()
        assert [is_new(memory, "thought", "1") for _ in range(3)] == [False, False, True]
        memory.reconnected()
        assert [is_new(memory, "thought", "1") for _ in range(4)] == [False, False, False, True]

    def test_in_other_words(self) -> None:
        """A message is known by its id, a tool call by its id and status."""
        memory = Replay()
        assert is_new(memory, "history_message", '{"id": "m", "content": "x"}')
        assert is_new(memory, "history_message", '{"id": 7, "content": "x"}')
        assert is_new(memory, "tool_call", '{"callId": "c", "status": "asks"}')
        assert is_new(memory, "tool_call", '{"callId": "c", "status": "runs"}')
        memory.reconnected()
        assert not is_new(memory, "tool_call", '{"status": "runs", "callId": "c", "x": 1}')
        assert not is_new(memory, "history_message", '{"content": "y", "id": "m"}')
        assert not is_new(memory, "history_message", '{"content": "y", "id": 7}')

    def test_strange_identities(self) -> None:
        """An id that is no plain value is not looked into, however deep it is nested."""
        depth = 300
        nested = "[" * depth + "]" * depth
        memory = Replay()
        raws = [
            ("history_message", f'{{"id": {nested}}}'),
            ("tool_call", f'{{"callId": {nested}, "status": {nested}}}'),
            ("tool_call", '{"callId": null, "status": "x"}'),
            ("tool_call", '{"callId": "x"}'),
        ]
        assert all(is_new(memory, *raw) for raw in raws)
        memory.reconnected()
        assert not any(is_new(memory, *raw) for raw in raws)


class TestCosts:
    """Counted in bytes that are allocated, which are the same on any machine.

    Other code of the process allocates at any moment. So what counts is the sum over many calls, in
    which a copy of the whole text would stand out, or what is left of what was allocated there and
    here.
    """

    PIECE = "word"

    def costs(self, memory: Replay, pieces: int) -> list[int]:
        """What each of so many pieces of text allocates."""
        data = {"text": self.PIECE}
        return [allocated(lambda: memory.sort("content", data, "x")) for _ in range(pieces)]

    def test_an_event_does_not_copy_what_came_before(self) -> None:
        """A piece of a long text is added without copying the text."""
        memory = Replay()
        for _ in range(40):
            say(memory, "x" * 100_000)
        tracemalloc.start()
        try:
            costs = self.costs(memory, 10_000)
        finally:
            tracemalloc.stop()
        assert sum(costs) < 4_000_000, "all together copied less than the text once"

    def test_a_reconnect_compares_each_character_once(self) -> None:
        """Repeating a long text in small pieces copies none of what is still to come."""
        memory = Replay()
        for _ in range(40):
            say(memory, "x" * 100_000)
        memory.reconnected()
        say(memory, "x")
        data = {"text": "xxxx"}
        tracemalloc.start()
        try:
            costs = [allocated(lambda: memory.sort("content", data, "x")) for _ in range(5_000)]
        finally:
            tracemalloc.stop()
        assert sum(costs) < 4_000_000, "all together copied less than the text once"

    def test_small_pieces_take_little_more_than_their_text(self) -> None:
        """A text in a hundred thousand pieces takes no string of its own for each."""
        memory = Replay()

        def many() -> None:
            for number in range(100_000):
                memory.sort("content", {"text": f"{number % 9999:04}"}, "x")

        assert kept(many) < 800_000

    def test_large_events_are_not_kept(self) -> None:
        """Ten events of a megabyte are told from each other without being kept."""
        memory = Replay()

        def ten() -> None:
            for number in range(10):
                memory.sort("tool_result", {}, "x" * 1_000_000 + str(number))

        assert kept(ten) < 10_000
        memory.reconnected()
        ((_, replayed),) = memory.sort("tool_result", {}, "x" * 1_000_000 + "7")
        ((_, other),) = memory.sort("tool_result", {}, "x" * 1_000_000 + "z")
        assert (replayed, other) == (True, False)

    def test_so_many_and_no_more(self) -> None:
        """Beyond the first 100,000 events nothing is remembered, and nothing is lost."""
        memory = Replay()
        count = replay.MAX_REMEMBERED + 10
        assert all(is_new(memory, "thought", str(number)) for number in range(count))
        memory.reconnected()
        again = [is_new(memory, "thought", str(number)) for number in range(count)]
        assert again == [False] * replay.MAX_REMEMBERED + [True] * 10
        assert len(memory._given) == replay.MAX_REMEMBERED
