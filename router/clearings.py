"""What requesters told of their last auctions: a bounded book, and what may be believed of it.

Anybody may tell anything, so a sender has one vote a model, medians decide, and what strangers
say counts for less. Pure but for the time it is given. Rule: router/README.md, "Self-selection".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from protocol import limits
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.messages import Clearing
from router.auction import told_points

PPM: Final = 1_000_000
# So many senders that paid this node outweigh any number of strangers; fewer are as strangers.
KNOWN_MIN: Final = 3
# Fewer strangers than this say nothing.
STRANGERS_MIN: Final = 4
# However many sellers there are said to be, this part of those over the bar bids; more of it
# where strangers alone say so.
CHANCE_MIN_PPM: Final = PPM // 256
STRANGERS_CHANCE_MIN_PPM: Final = PPM // 16


@dataclass(frozen=True, slots=True)
class Bar:
    """What a bid on one request is held against: the points of about the CLEARING_RANK-th best,
    how many sell the model, how many told so lately, and whether they can be trusted."""

    points: int
    sellers: int
    voices: int
    trusted: bool

    def chance_ppm(self, wanted: int) -> int:
        """The part of the sellers over the bar that should bid for about `wanted` bids."""
        least = CHANCE_MIN_PPM if self.trusted else STRANGERS_CHANCE_MIN_PPM
        return min(PPM, max(least, wanted * PPM // self.sellers))


class Clearings:
    """The last word of each sender by model. `is_known` says who paid this node."""

    def __init__(self, is_known: Callable[[bytes], bool]) -> None:
        self._is_known = is_known
        self._known: dict[str, dict[bytes, Signed]] = {}
        self._strangers: dict[str, dict[bytes, Signed]] = {}

    def take(self, signed: Signed) -> None:
        """Keep what admission let through. RemoteError, no offence: `envelope.stale` when the
        sender told something of that model just before."""
        told: Clearing = signed.message
        for group in (self._known, self._strangers):
            before = group.get(told.model, {}).get(signed.sender)
            if before is None:
                continue
            if signed.sent_at_ns < before.sent_at_ns + limits.CLEARING_INTERVAL_NS:
                raise RemoteError("envelope.stale", "told too often", penalize=False)
            del group[told.model][signed.sender]
        known = self._is_known(signed.sender)
        group = self._known if known else self._strangers
        kept = limits.CLEARING_KNOWN_KEPT if known else limits.CLEARING_STRANGERS_KEPT
        senders = group.pop(told.model, {})
        group[told.model] = senders
        senders[signed.sender] = signed
        if len(senders) > kept:
            del senders[next(iter(senders))]
        if len(group) > limits.CLEARING_MODELS_KEPT:
            del group[next(iter(group))]

    def bar(self, request: Signed, now_ns: int, seen: int = 0) -> Bar | None:
        """What is believed of `request`'s market; None when too little was told.

        `seen` sellers were seen by this node itself, which is no word of others: there are no
        more than that. 0: it can't see them.
        """
        model = request.message.model
        known = list(_fresh(self._known.get(model, {}).values(), now_ns))
        strangers = list(_fresh(self._strangers.get(model, {}).values(), now_ns))
        trusted = len(known) >= KNOWN_MIN
        if not trusted:
            known, strangers = [], [*known, *strangers]
            if len(strangers) < STRANGERS_MIN:
                return None
        # All strangers together weigh a third.
        weights = (2 * max(1, len(strangers)), max(1, len(known)))
        points, sellers = [], []
        for told, weight in zip((known, strangers), weights, strict=True):
            points += [(told_points(request, one), weight) for one in told]
            sellers += [(one.sellers, weight) for one in told]
        # Where two halves disagree, the one under which more bid.
        believed = _median(sellers)
        return Bar(
            -_median([(-value, weight) for value, weight in points]),
            min(believed, seen) if seen else believed,
            len(known) + len(strangers),
            trusted,
        )


def _fresh(kept: Iterable[Signed], now_ns: int) -> Iterable[Clearing]:
    return (
        signed.message
        for signed in kept
        if now_ns - signed.sent_at_ns <= limits.CLEARING_LIFETIME_NS
    )


def _median(weighted: list[tuple[int, int]]) -> int:
    """The lower one, of values with weights."""
    ordered = sorted(weighted)
    half, below = sum(weight for _, weight in ordered), 0
    for value, weight in ordered:
        below += weight
        if 2 * below >= half:
            return value
    raise AssertionError("nothing to take a median of")
