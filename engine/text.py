"""From tokens' bytes to text that may be shown: whole characters, cut at stop strings.

Pure. Text is held back while it could be the start of a stop string or of a character; a
token counts when its text is released, so a count never runs ahead of the text.
Rule: engine/README.md.
"""

import codecs
from collections.abc import Sequence


class TextStream:
    """The visible text of one sequence."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._count = 0
        self.stopped = False

    def push(self, piece: bytes) -> tuple[str, int]:
        """Take one token's bytes; the text that is free now and the tokens that made it.

        Sets `stopped` when a stop string is complete: it and what follows are dropped, and
        the tokens that made it still count. ("", 0) when everything is held back.
        """
        assert not self.stopped
        self._count += 1
        self._held += self._decoder.decode(piece)
        if not self._stop:
            return self._release(len(self._held)) if self._held else ("", 0)
        cut = min((at for at in map(self._held.find, self._stop) if at >= 0), default=-1)
        if cut >= 0:
            self.stopped = True
            return self._release(cut)
        free = len(self._held) - self._maybe_stop()
        return self._release(free) if free else ("", 0)

    def flush(self) -> tuple[str, int]:
        """The end: what was held back. The bytes of an unfinished character are dropped."""
        if self.stopped:
            return "", 0
        return self._release(len(self._held))

    def _release(self, characters: int) -> tuple[str, int]:
        text, self._held = self._held[:characters], self._held[characters:]
        count, self._count = self._count, 0
        return text, count

    def _maybe_stop(self) -> int:
        """How many characters at the end could begin a stop string."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
