"""Questions to all witnesses, each asked again until it is answered. Sans-IO.

Knows nothing of what is asked. Rule: protocol/README.md, "Witnesses".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocol import limits
from router.actions import SessionKey
from router.context import Context
from router.timers import TimerKey

RETRY = TimerKey("quorum", b"")
Key = tuple[str, bytes, int]


@dataclass(slots=True)
class Inquiry:
    """What every witness is asked, and those that have not answered."""

    messages: tuple[Any, ...]
    waiting: list[bytes]


class Inquiries:
    """The open questions by kind, subject and number; a new one of a key replaces the old.

    `connect` opens a stream to a witness unless it is on its way; `is_up` says whether it is up.
    """

    def __init__(
        self,
        context: Context,
        witnesses: tuple[bytes, ...],
        connect: Callable[[bytes], None],
        is_up: Callable[[bytes], bool],
    ) -> None:
        self._context = context
        # A node that is a witness itself does not ask itself.
        self._witnesses = tuple(one for one in witnesses if one != context.public_key)
        self._connect = connect
        self._is_up = is_up
        self._open: dict[Key, Inquiry] = {}

    def ask(self, key: Key, *messages: Any) -> None:
        """Ask every witness: now, or when it is up."""
        inquiry = self._open[key] = Inquiry(messages, list(self._witnesses))
        for witness in self._witnesses:
            self._put(witness, inquiry)
        self._retry_later()

    def _put(self, witness: bytes, inquiry: Inquiry) -> None:
        if not self._is_up(witness):
            self._connect(witness)
            return
        for message in inquiry.messages:
            self._context.send(SessionKey(witness, outbound=True), message)

    def get(self, key: Key) -> Inquiry | None:
        """The open question of this key."""
        return self._open.get(key)

    def of(self, subject: bytes) -> list[tuple[Key, Inquiry]]:
        """All open questions about one thing."""
        return [(key, inquiry) for key, inquiry in self._open.items() if key[1] == subject]

    def awaited(self) -> bool:
        """Whether a witness that is up, or may be soon, has not answered something."""
        return bool(self._open)

    def answered(self, key: Key, witness: bytes) -> None:
        """This witness has answered this question."""
        inquiry = self._open.get(key)
        if inquiry is not None and witness in inquiry.waiting:
            inquiry.waiting.remove(witness)
            if not inquiry.waiting:
                del self._open[key]

    def connected(self, witness: bytes) -> None:
        """A stream to it is up: ask what it has not answered."""
        for inquiry in list(self._open.values()):
            if witness in inquiry.waiting:
                self._put(witness, inquiry)

    def retry(self) -> None:
        """Reach for those that are still to answer and are not connected."""
        for witness in self._witnesses:
            asked = any(witness in inquiry.waiting for inquiry in self._open.values())
            if asked and not self._is_up(witness):
                self._connect(witness)
        self._retry_later()

    def _retry_later(self) -> None:
        if self._open:
            self._context.timers.set(RETRY, self._context.now_ns + limits.WITNESS_RETRY_NS)
