"""State machines as data: an enum of states, an enum of events, one table, one `apply`.

An absent cell is an error with a code. The diagrams in the docs are made from the tables.
"""

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from protocol.errors import RemoteError

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


def apply(table: Mapping[tuple[S, E], S], state: S, event: E, code: str) -> S:
    """The state after `event`; RemoteError(code) when the table has no such cell."""
    following = table.get((state, event))
    if following is None:
        raise RemoteError(code, f"{event.value} in {state.value}")
    return following


def diagram(table: Mapping[tuple[S, E], S]) -> str:
    """The table as a Mermaid state diagram, one line a cell, in table order."""
    lines = ["stateDiagram-v2"]
    lines += [
        f"    {old.name} --> {new.name}: {event.value}" for (old, event), new in table.items()
    ]
    return "\n".join(lines)
