"""Whether a bid is worth sending, as nobody is served by a storm of hopeless ones.

A provider whose bid is as good as those that win sends it; another draws a lot, which follows
from its key and the request, so that about as many bid as are wanted. Nothing here silences a
provider for good. Sans-IO. Rule: router/README.md, "Self-selection".
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from protocol import crypto, limits
from protocol.channel import Role
from protocol.envelope import Signed
from protocol.messages import Bid, Request
from protocol.units import NS_PER_S
from router.auction import measure
from router.clearings import PPM
from router.context import Context

# Of what was bid by lot, or when asked again, a bar that is true lets next to none win. Once so
# many did, and a quarter of all, it is not believed for a while.
_WINS_MIN: Final = 2
_WINS_SHARE: Final = 4
_LOTS_COUNTED: Final = 16
DOUBT_NS: Final = 60 * NS_PER_S


@dataclass(slots=True)
class _Luck:
    """How bids did that the bar spoke against, of one model."""

    bids: int = 0
    won: int = 0
    doubt_until_ns: int = 0


class SelfSelection:
    """What this provider withholds. `wanted` bids by lot are aimed at; 0: every bid is sent."""

    def __init__(self, context: Context, wanted: int) -> None:
        self._context = context
        self._wanted = wanted
        self._withheld: OrderedDict[bytes, Signed] = OrderedDict()
        self._against: OrderedDict[bytes, str] = OrderedDict()  # requests bid on all the same
        self._luck: dict[str, _Luck] = {}
        self.withheld = 0

    def withholds(self, request: Signed, bid: Bid) -> bool:
        """Whether `bid` stays unsent; it is remembered, in case it is asked for."""
        chance_ppm = self._chance_ppm(request, bid)
        if chance_ppm == PPM:
            return False
        if lot_ppm(self._context.public_key, request.digest) < chance_ppm:
            self._bid_against(request)
            return False
        self.withheld += 1
        self._withheld[request.digest] = request
        if len(self._withheld) > limits.BIDS_WITHHELD_KEPT:
            self._withheld.popitem(last=False)
        self._context.note(
            "bid.withheld",
            request_id=request.digest,
            peer_id=request.sender,
            model=request.message.model,
            chance_ppm=chance_ppm,
        )
        return True

    def asked_again(self, requester: bytes, request_id: bytes) -> Signed | None:
        """The request whose requester wants the bid that was withheld, once; None for another."""
        request = self._withheld.get(request_id)
        if request is None or request.sender != requester:
            return None
        del self._withheld[request_id]
        self._bid_against(request)
        return request

    def won(self, request_id: bytes) -> None:
        """A bid of ours was awarded: if the bar spoke against it, is the bar true?"""
        model = self._against.pop(request_id, None)
        luck = self._luck.get(model) if model is not None else None
        if luck is None:
            return
        luck.won += 1
        if luck.won >= _WINS_MIN and luck.won * _WINS_SHARE >= luck.bids:
            until_ns = self._context.now_ns + DOUBT_NS
            self._luck[model or ""] = _Luck(doubt_until_ns=until_ns)

    def _chance_ppm(self, request: Signed, bid: Bid) -> int:
        """The chance of this bid to be sent; PPM for surely."""
        context = self._context
        ask: Request = request.message
        if not self._wanted or ask.filters.providers_only:
            return PPM
        if context.ledger.with_peer(request.sender, Role.PAYEE):
            return PPM
        luck = self._luck.get(ask.model)
        if luck is not None and context.now_ns < luck.doubt_until_ns:
            return PPM
        others = context.offers.sellers(ask.model, context.now_ns)
        bar = context.clearings.bar(request, context.now_ns, others + 1 if others else 0)
        if bar is None or measure(request, bid)[2] <= bar.points:
            return PPM
        return bar.chance_ppm(self._wanted)

    def _bid_against(self, request: Signed) -> None:
        model = request.message.model
        self._against[request.digest] = model
        if len(self._against) > limits.BIDS_OUTSTANDING_MAX:
            self._against.popitem(last=False)
        luck = self._luck.pop(model, None) or _Luck()
        self._luck[model] = luck
        if len(self._luck) > limits.CLEARING_MODELS_KEPT:
            del self._luck[next(iter(self._luck))]
        if luck.bids == _LOTS_COUNTED:
            luck.bids, luck.won = luck.bids // 2, luck.won // 2
        luck.bids += 1


def lot_ppm(provider: bytes, request_id: bytes) -> int:
    """A provider's lot on a request, below 1,000,000: the requester can work it out, too."""
    return int.from_bytes(crypto.digest(provider, request_id)[:8], "big") % PPM
