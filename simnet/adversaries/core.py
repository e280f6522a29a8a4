"""Cores beside the honest one: a node that hears, wants and says something else than it should.

Each wraps the honest node, whose code is unchanged: it may change or drop what the node is given
and what it wants, and do things at times of its own. Rule: `scenario.adversaries`.
"""

import heapq
from dataclasses import replace
from typing import Any, Final

from protocol import wire
from protocol.fields import FinishReason
from protocol.framing import HEADER_BYTES, frame
from protocol.messages import Award, Chunk, Request, Voucher
from protocol.units import NS_PER_MS
from router import actions as act
from router.actions import Action, Input
from router.node import Node
from simnet.market.inference import filler, prompt_tokens

PIECE_TOKENS: Final = 8
NEVER_NS: Final = 1 << 63


class Adversary(Node):
    """An honest node inside; `turn` is its place among `members` of one kind."""

    settings: Any = None
    turn, members = 0, 1

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._later: list[tuple[int, int, Action | Input]] = []
        self._serial = 0

    # --- what a kind says --------------------------------------------------------------------

    def hear(self, item: Input, now_ns: int) -> Input | None:
        """What the honest node is given of an input; None for nothing."""
        return item

    def want(self, action: Action, now_ns: int) -> list[Action]:
        """What is done of an action that the honest node wants."""
        return [action]

    def tick(self, now_ns: int) -> list[Action]:
        """What it does at times of its own."""
        return []

    def tick_ns(self) -> int:
        """When `tick` is due."""
        return NEVER_NS

    # --- as a node ---------------------------------------------------------------------------

    def later(self, at_ns: int, what: Action | Input) -> None:
        """Do, or be given, something later."""
        self._serial += 1
        heapq.heappush(self._later, (at_ns, self._serial, what))

    def next_timer(self) -> int | None:
        """As a node's."""
        own_ns = min(self._later[0][0] if self._later else NEVER_NS, self.tick_ns())
        honest_ns = super().next_timer()
        at_ns = own_ns if honest_ns is None else min(own_ns, honest_ns)
        return None if at_ns == NEVER_NS else at_ns

    def receive(self, item: Input, now_ns: int) -> list[Action]:
        """As a node's."""
        heard = self.hear(item, now_ns)
        return [] if heard is None else self._bent(super().receive(heard, now_ns), now_ns)

    def handle_timer(self, now_ns: int) -> list[Action]:
        """As a node's."""
        actions = self._bent(super().handle_timer(now_ns), now_ns)
        while self._later and self._later[0][0] <= now_ns:
            what = heapq.heappop(self._later)[2]
            if isinstance(what, Action):
                actions.append(what)
            else:
                actions += self._bent(super().receive(what, now_ns), now_ns)
        if self.tick_ns() <= now_ns:
            actions += self.tick(now_ns)
        return actions

    def _bent(self, actions: list[Action], now_ns: int) -> list[Action]:
        return [done for action in actions for done in self.want(action, now_ns)]


class Vanishing(Adversary):
    """Says nothing to who pays it, and starts no machine."""

    def want(self, action: Action, now_ns: int) -> list[Action]:
        """Bids go out; whatever an award asks for does not."""
        silent = isinstance(action, act.Send) and not action.session.outbound
        return [] if silent or isinstance(action, act.StartJob | act.CancelJob) else [action]


class Inventing(Adversary):
    """Its engine is a string."""

    def want(self, action: Action, now_ns: int) -> list[Action]:
        """A job is answered by itself, at once."""
        if isinstance(action, act.StartJob):
            self._invent(action, now_ns)
            return []
        return [] if isinstance(action, act.CancelJob) else [action]

    def _invent(self, job: act.StartJob, now_ns: int) -> None:
        tokens = job.parameters.output_tokens_max
        pieces = [PIECE_TOKENS] * (tokens // PIECE_TOKENS) + [tokens % PIECE_TOKENS]
        texts = tuple((filler(count), count) for count in pieces if count)
        self.later(now_ns, act.JobStarted(job.job_id, prompt_tokens(job.prompt)))
        self.later(now_ns + NS_PER_MS, act.JobTokens(job.job_id, texts))
        ended = act.JobFinished(
            job.job_id, FinishReason.LENGTH, tokens, NS_PER_MS, NS_PER_MS, "sim", ""
        )
        self.later(now_ns + NS_PER_MS, ended)


class Miscopying(Adversary):
    """What it signs is not what it sends."""

    def want(self, action: Action, now_ns: int) -> list[Action]:
        """Another text under the same transcript."""
        if isinstance(action, act.Send):
            chunk = wire.decode(action.data[HEADER_BYTES:])
            if isinstance(chunk, Chunk):
                return [_send(action, replace(chunk, text=chunk.text[::-1]))]
        return [action]


class Overcounting(Adversary):
    """Its tokenizer counts in its favour."""

    def hear(self, item: Input, now_ns: int) -> Input | None:
        """More tokens for the same text."""
        if isinstance(item, act.JobTokens):
            pieces = tuple((text, self._more(count)) for text, count in item.pieces)
            return replace(item, pieces=pieces)
        if isinstance(item, act.JobFinished):
            return replace(item, output_tokens=self._more(item.output_tokens))
        return item

    def _more(self, tokens: int) -> int:
        factor: int = self.settings.factor_permille
        return tokens * factor // 1_000


class Boasting(Adversary):
    """Its promises are better than its machine."""

    def hear(self, item: Input, now_ns: int) -> Input | None:
        """Sooner and faster."""
        if not isinstance(item, act.OffersChanged):
            return item
        factor: int = self.settings.factor_permille
        offers = tuple(
            replace(
                offer,
                ttft_ns=offer.ttft_ns * 1_000 // factor,
                ttft_ns_per_input_token=offer.ttft_ns_per_input_token * 1_000 // factor,
                tokens_per_s_milli=offer.tokens_per_s_milli * factor // 1_000,
            )
            for offer in item.offers
        )
        return act.OffersChanged(offers)


class Colluding(Adversary):
    """Keeps to what its ring agreed: whose turn it is follows from the request."""

    def want(self, action: Action, now_ns: int) -> list[Action]:
        """No bid out of turn."""
        if isinstance(action, act.SendBid):
            turn = int.from_bytes(action.request_id[:4], "big") % self.members
            return [action] if turn == self.turn else []
        return [action]


class Sniping(Adversary):
    """Bids last."""

    _ends_ns = 0

    def hear(self, item: Input, now_ns: int) -> Input | None:
        """When the window of the request ends that may be bid on."""
        if isinstance(item, act.GossipReceived) and isinstance(item.signed.message, Request):
            self._ends_ns = item.signed.sent_at_ns + item.signed.message.bid_window_ns
        return item

    def want(self, action: Action, now_ns: int) -> list[Action]:
        """Bids wait."""
        if not isinstance(action, act.SendBid):
            return [action]
        at_ns = self._ends_ns - self.settings.margin_ms * NS_PER_MS
        if at_ns <= now_ns:
            return [action]
        self.later(at_ns, action)
        return []


class Withholding(Adversary):
    """Pays nothing."""

    def want(self, action: Action, now_ns: int) -> list[Action]:
        """No voucher leaves, not with an award either."""
        if isinstance(action, act.Send):
            message = wire.decode(action.data[HEADER_BYTES:])
            if isinstance(message, Voucher):
                return []
            if isinstance(message, Award):
                return [_send(action, replace(message, voucher=None))]
        return [action]


class Repeating(Adversary):
    """Pays for everything with one voucher a channel."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._first: dict[bytes, Voucher] = {}

    def want(self, action: Action, now_ns: int) -> list[Action]:
        """The first voucher in place of each."""
        if isinstance(action, act.Send):
            message = wire.decode(action.data[HEADER_BYTES:])
            if isinstance(message, Voucher):
                return [_send(action, self._first.setdefault(message.cid, message))]
            if isinstance(message, Award) and message.voucher is not None:
                first = self._first.setdefault(message.cid, message.voucher)
                return [_send(action, replace(message, voucher=first))]
        return [action]


def _send(action: act.Send, message: Any) -> act.Send:
    return act.Send(action.session, frame(wire.encode(message)))
