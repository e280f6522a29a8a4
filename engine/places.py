"""Which tokens' keys and values lie in each place of a model, and who gets which place.

What a job leaves in its place stays until the place is needed, so a prompt that begins as an
earlier one is read only from where they differ. Mirrors what `NativeModel` holds, and is the
only caller of what changes it beside `decode`. Must not know jobs. Rule: engine/README.md.
"""

from collections.abc import Sequence

from engine.native import NativeModel, Row

# Fewer are read again about as fast as they are kept or copied.
REUSED_TOKENS_MIN = 16


def common_tokens(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two lists have in common at their beginning."""
    low, high = 0, min(len(left), len(right))
    # Halving, as comparing slices is many times faster than comparing items here.
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Places:
    """The places of a model; with `reuses` off, every job begins with an empty one.

    What lies in a place serves its owner alone: others could tell from the time to the first
    token what somebody's prompt began with.
    """

    def __init__(self, model: NativeModel, *, reuses: bool) -> None:
        self._model = model
        self.reuses = reuses
        # What a self-test left is not listed, so it is forgotten when the place is taken.
        self._resident: list[list[int]] = [[] for _ in range(model.places)]
        self._owners = [b""] * model.places
        # Whether nothing is in it, not even what a self-test left.
        self._empty = [False] * model.places
        # The least recently used first, and before them those that were never used.
        self._free = list(range(model.places))

    @property
    def free(self) -> int:
        """How many places are free."""
        return len(self._free)

    def resident(self, place: int) -> tuple[int, ...]:
        """The tokens that lie in a place."""
        return tuple(self._resident[place])

    def take(self, tokens: list[int], owner: bytes, *, may_reuse: bool = True) -> tuple[int, int]:
        """A free place for `owner`'s job that feeds `tokens`, and how many it already holds.

        At least one is left to feed, as only a token that is fed has logits. The free place
        that holds most of them is taken; if one that is running holds more, by what is worth a
        copy, it is copied into the next free place; else that one is emptied.
        """
        target, kept = self._next_free(), 0
        if self.reuses and may_reuse:
            target, kept = self._prepare(tokens, owner)
        if not kept:
            self._model.forget(target)
        self._empty[target] = False
        self._resident[target] = tokens[:kept]
        self._owners[target] = owner
        self._free.remove(target)
        return target, kept

    def held(self, tokens: list[int], owner: bytes) -> int:
        """How many of the first `tokens` of `owner`'s job need not be read now."""
        return max(self._common(tokens, owner))

    def refill(self, place: int, tokens: list[int], owner: bytes) -> int:
        """As `take`, for a place that was taken and is still empty: how many it holds now."""
        common = self._common(tokens, owner)
        source = max(range(len(common)), key=common.__getitem__)
        if common[source] < REUSED_TOKENS_MIN:
            return 0
        self._model.copy(source, place)
        if not self._model.keep(place, common[source]):
            self._model.forget(place)
            return 0
        self._resident[place] = tokens[: common[source]]
        return common[source]

    def _common(self, tokens: list[int], owner: bytes) -> list[int]:
        """For each place, how many of a job's tokens it holds; the last one is always read."""
        return [
            min(common_tokens(held, tokens), len(tokens) - 1) if owner == whose else 0
            for held, whose in zip(self._resident, self._owners, strict=True)
        ]

    def _prepare(self, tokens: list[int], owner: bytes) -> tuple[int, int]:
        """As `take`; 0 when the place has to be emptied."""
        common = self._common(tokens, owner)
        # Of equals, `max` finds the first: the one that was used least recently.
        best = max(self._free, key=common.__getitem__)
        source = max(range(len(common)), key=common.__getitem__)
        if common[source] >= common[best] + REUSED_TOKENS_MIN:
            target = self._next_free()
            self._model.copy(source, target)
        elif common[best] >= REUSED_TOKENS_MIN:
            source = target = best
        else:
            return self._next_free(), 0
        # Some kinds of models can't go back to an earlier token: then all is read again.
        return target, common[source] if self._model.keep(target, common[source]) else 0

    def _next_free(self) -> int:
        """The free place with most running neighbours, 0 to 2; of equals, as `_free` has them.

        llama.cpp computes a row of neighbours at once, and one more row takes it as long as
        another step: every second place of 32 takes four times as long as the first 16.
        """
        running = set(range(len(self._resident))) - set(self._free)
        return max(self._free, key=lambda place: (place - 1 in running) + (place + 1 in running))

    def record(self, rows: Sequence[Row]) -> None:
        """These were fed."""
        for row in rows:
            self._resident[row.sequence] += row.tokens

    def release(self, place: int) -> None:
        """A job has left its place; what it fed stays."""
        self._free.append(place)

    def evict(self) -> bool:
        """Empty the least recently used of the free places that are not; False when all are."""
        for place in self._free:
            if not self._empty[place]:
                self._clear(place)
                return True
        return False

    def give_up(self, place: int) -> tuple[int, ...]:
        """Take a place from its job, and empty it: the tokens that it had been fed."""
        fed = self.resident(place)
        self._clear(place)
        self._free.insert(0, place)
        return fed

    def _clear(self, place: int) -> None:
        self._model.forget(place)
        self._resident[place] = []
        self._empty[place] = True
