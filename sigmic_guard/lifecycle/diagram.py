"""The transition table as a picture, for the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sigmic_guard.lifecycle.states import ENDED, TRANSITIONS, Event, State

if TYPE_CHECKING:
    from collections.abc import Mapping


def mermaid(transitions: Mapping[State, Mapping[Event, State]] = TRANSITIONS) -> str:
    """Return the table as a Mermaid ``stateDiagram-v2``, what stays in its state left out."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.INTENT}"]
    for state, row in transitions.items():
        arrows: dict[State, list[str]] = {}
        for event, target in row.items():
            if target is not state:
                arrows.setdefault(target, []).append(event)
        lines += [f"    {state} --> {target}: {', '.join(on)}" for target, on in arrows.items()]
    lines += [f"    {state} --> [*]" for state in transitions if state in ENDED]
    return "\n".join(lines) + "\n"
