"""Whose adapter the next step is computed with: a context has one at a time.

Jobs with the same adapter share their steps, and the groups take turns by time: switching costs
a step of a small model several times over. Must not know llama.cpp. Rule: engine/README.md,
"Adapters".
"""

from collections.abc import Callable, Collection

from protocol import limits


class AdapterTurns:
    """Goes around the adapters that jobs want; `use` is called when another one's turn begins."""

    def __init__(self, use: Callable[[int], None]) -> None:
        self._use = use
        self._now = 0
        self._since_ns = 0

    def take(self, wanted: Collection[int], now_ns: int) -> int:
        """The adapter of the next step, one of those that are wanted, which is at least one.

        Nobody waits longer than a turn of each of the others, and the step that ends it.
        """
        others = sorted(wanted, key=lambda each: (each <= self._now, each))
        is_over = now_ns - self._since_ns >= limits.ENGINE_ADAPTER_TURN_NS
        if self._now in wanted and (others == [self._now] or not is_over):
            return self._now
        # The next higher number, and after the highest the lowest.
        self._now, self._since_ns = others[0], now_ns
        self._use(self._now)
        return self._now
