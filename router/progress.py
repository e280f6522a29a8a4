"""What has come of an ask so far, over all its requests and awards. Decides nothing. Pure.

Rule: router/README.md, "When a provider fails".
"""

from dataclasses import dataclass, field
from typing import Final

from protocol import limits
from protocol.lane import LaneState
from router.actions import Ask
from router.attempt import Attempt
from router.events import Part

_ENDED: Final = (LaneState.AUDIT, LaneState.PAID, LaneState.DISPUTED, LaneState.ABORTED)


@dataclass(slots=True)
class Progress:
    """An ask as it was asked, the lanes that it was awarded on, and what its asker has read.

    `output_tokens` were read before the part that runs, of the providers that `broke_off`, some
    of which `lied`. All that `failed` did so before the first text of this part, and it was
    auctioned again. `code` and `detail` say why the last of either did. `pieces` are the text so
    far, while a message can hold it.
    """

    ask: Ask
    began_at_ns: int
    attempts: list[Attempt] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    characters: int = 0
    output_tokens: int = 0
    broke_off: list[bytes] = field(default_factory=list)
    lied: list[bytes] = field(default_factory=list)
    failed: list[bytes] = field(default_factory=list)
    auctions_again: int = 0
    code: str = ""
    detail: str = ""

    @property
    def paid_ucr(self) -> int:
        """What all its lanes have cost so far."""
        return sum(attempt.lane.due_ucr for attempt in self.attempts)

    @property
    def exposed_ucr(self) -> int:
        """What all its lanes may have cost in the end."""
        return sum(map(exposed_ucr, self.attempts))

    @property
    def text(self) -> str | None:
        """What the asker has read; None when it is too long for a message."""
        return "".join(self.pieces) if self.characters <= limits.MESSAGE_TEXT_CHARS_MAX else None

    def read(self, text: str) -> None:
        """The asker was given more."""
        self.characters += len(text)
        if self.characters <= limits.MESSAGE_TEXT_CHARS_MAX:
            self.pieces.append(text)
        else:
            self.pieces.clear()

    def reason(self, code: str, detail: str) -> tuple[str, str]:
        """Why an ask failed whose award, or wish for one, came to `code`: where an answer was
        begun, why it broke off says more; where nobody else bid again, why the first awards
        failed."""
        if not self.code or (self.failed and code == "request.all_failed"):
            return code, detail
        if self.failed:
            return self.code, f"{self.detail}; in a second auction: {code}".removeprefix("; ")
        return self.code, f"{self.detail}; not continued elsewhere: {code}".removeprefix("; ")

    def others(self, last: Attempt | None) -> tuple[Part, ...]:
        """The lanes beside the `last` one that cost something."""
        return tuple(
            Part(
                provider=attempt.provider,
                cid=attempt.channel.cid,
                lane=attempt.lane.lane,
                input_tokens=attempt.input_tokens,
                output_tokens=attempt.output_tokens,
                cost_ucr=attempt.lane.due_ucr,
                code=attempt.code,
                receipt_id=attempt.receipt_id,
            )
            for attempt in self.attempts
            if attempt is not last and (attempt.lane.due_ucr or attempt.receipt_id)
        )


def exposed_ucr(attempt: Attempt) -> int:
    """The most that a lane may cost in the end, by what is signed and what its payee may lend.

    One that is cancelled goes on until its provider hears of it: as far as the vouchers that are
    ahead and the payee's window carry.
    """
    lane, channel = attempt.lane, attempt.channel
    if lane.state in _ENDED or not channel.is_open:
        return lane.due_ucr
    most = max(lane.due_ucr, attempt.scored.cost_max_ucr)
    if attempt.live:
        return most
    ahead = max(0, channel.total_ucr - channel.due_ucr)
    return min(most, lane.due_ucr + ahead + channel.terms.window_ucr)
