"""Why a request went where it went: every bid and offer looked at, every award, the end.

Kept in memory, bounded; what lasts of it is in the log. Holds no prompt and no text. Pure.
Rule: router/README.md, "Choosing".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from protocol import limits
from protocol.fields import AwardRole, Outcome
from protocol.records import AwardJudged, AwardMade
from router.actions import Ask
from router.counting import Counts


@dataclass(frozen=True, slots=True)
class Considered:
    """A bid, or a standing offer, as it was judged; `code` is empty when it was acceptable.

    `effective_ucr` is the cost for who counts tokens as others do, `counts` how it counts them;
    `score` is lower for better, `reputation` 0 to 1000 for better; times in ns from the start.
    """

    provider: bytes
    from_offer: bool
    input_price_ucr: int
    output_price_ucr: int
    ttft_ns: int
    tokens_per_s_milli: int
    cost_max_ucr: int
    effective_ucr: int
    counts: Counts
    latency_ns: int
    score: int
    reputation: int
    suspended: bool
    at_ns: int
    code: str
    detail: str
    quantization: str = ""


@dataclass(slots=True)
class Tried:
    """An award; `outcome` is None while it runs."""

    provider: bytes
    at_ns: int
    outcome: Outcome | None = None
    code: str = ""
    paid_ucr: int = 0
    role: AwardRole = AwardRole.FIRST


@dataclass(slots=True)
class Explanation:
    """One request. `left_out` counts what was looked at beyond what is kept; `continued_by` are
    the requests that went on with its answer."""

    request_id: bytes
    ask: Ask
    started_at_ns: int
    median_ucr: int = 0
    considered: list[Considered] = field(default_factory=list)
    left_out: int = 0
    asked_again: bool = False  # the bids in time were too few, and withheld ones were asked for
    tried: list[Tried] = field(default_factory=list)
    continued_by: list[bytes] = field(default_factory=list)
    ended_at_ns: int = 0
    code: str = ""
    detail: str = ""
    receipt_id: bytes = b""

    def add(self, considered: Considered) -> None:
        """Keep one more, up to CONSIDERED_KEPT."""
        if len(self.considered) < limits.CONSIDERED_KEPT:
            self.considered.append(considered)
        else:
            self.left_out += 1

    def ended(self, provider: bytes, outcome: Outcome, code: str, paid_ucr: int) -> None:
        """The award that this provider has came to its end."""
        for tried in reversed(self.tried):
            if tried.provider == provider and tried.outcome is None:
                tried.outcome, tried.code, tried.paid_ucr = outcome, code, paid_ucr
                return

    @property
    def paid_ucr(self) -> int:
        """For all awards together."""
        return sum(tried.paid_ucr for tried in self.tried)


class Explanations:
    """Those of the last requests, by id, oldest first."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._by_request: dict[bytes, Explanation] = {}

    def begin(self, request_id: bytes, ask: Ask, now_ns: int) -> Explanation | None:
        """A new one; None where none are kept."""
        if not self._kept:
            return None
        explanation = self._by_request[request_id] = Explanation(request_id, ask, now_ns)
        if len(self._by_request) > self._kept:
            del self._by_request[next(iter(self._by_request))]
        return explanation

    def find(self, request_id: bytes) -> Explanation | None:
        """By the whole id, or by its only beginning; also by that of a request that went on."""
        found = [
            explanation
            for key, explanation in self._by_request.items()
            if any(name.startswith(request_id) for name in (key, *explanation.continued_by))
        ]
        return found[0] if len(found) == 1 else None


def judged_awards(logged: Iterable[Any]) -> Iterator[tuple[AwardJudged, AwardRole]]:
    """The awards that a log says ended, each with why it was made: a provider has one at a time
    of a request."""
    roles: dict[tuple[bytes, bytes], AwardRole] = {}
    for record in logged:
        match record:
            case AwardMade():
                roles[record.request_id, record.provider] = record.role
            case AwardJudged():
                of = (record.request_id, record.provider)
                yield record, roles.pop(of, AwardRole.FIRST)
