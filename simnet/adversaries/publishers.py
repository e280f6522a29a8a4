"""Adversaries that say on the topic what no honest node would. Rule: `scenario.adversaries`."""

from dataclasses import replace
from typing import Any, Final

from protocol import crypto, limits
from protocol.envelope import Signed, open_envelope, sign_envelope
from protocol.errors import RemoteError
from protocol.messages import Clearing, Request
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import Action, Input
from simnet.adversaries.core import NEVER_NS, Adversary

# That everything is free, at once, and everybody sells it: no bid is as good.
SELLERS_TOLD: Final = limits.U32_MAX


class Flooding(Adversary):
    """Publishes the last request that it heard as its own, again and again."""

    _model: Request | None = None
    _next_ns = NEVER_NS

    def hear(self, item: Input, now_ns: int) -> Input | None:
        """What to imitate."""
        if isinstance(item, act.GossipReceived) and isinstance(item.signed.message, Request):
            self._model = item.signed.message
            self._next_ns = min(self._next_ns, now_ns)
        return item

    def tick_ns(self) -> int:
        """Once a message."""
        return self._next_ns

    def tick(self, now_ns: int) -> list[Action]:
        """One more."""
        assert self._model is not None
        self._next_ns = now_ns + NS_PER_S // self.settings.messages_per_s
        key = crypto.box_public_key(self.context.entropy(32))
        request = replace(self._model, ephemeral_key=key, deadline_ns=now_ns + 30 * NS_PER_S)
        context = self.context
        signed = sign_envelope(context.signer, context.network, request, now_ns)
        return [act.Publish(signed.data)]

    def admit(self, data: bytes, now_ns: int) -> Signed:
        """Its own have no limit here."""
        try:
            return super().admit(data, now_ns)
        except RemoteError:
            context, ours = self.context, (Request,)
            signed = open_envelope(
                data, context.network, now_ns, allowed=ours, verify=context.verify
            )
            if signed.sender != context.public_key:
                raise
            return signed


class Silencing(Adversary):
    """Bids on everything, and tells other sellers that they need not."""

    _about: Request | None = None
    _next_ns = NEVER_NS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "bids_wanted": 0})

    def hear(self, item: Input, now_ns: int) -> Input | None:
        """Which model is asked for."""
        if isinstance(item, act.GossipReceived) and isinstance(item.signed.message, Request):
            self._about = item.signed.message
            self._next_ns = min(self._next_ns, now_ns)
        return item

    def tick_ns(self) -> int:
        """As often as anybody is heard."""
        return self._next_ns

    def tick(self, now_ns: int) -> list[Action]:
        """One lie."""
        assert self._about is not None
        self._next_ns = now_ns + limits.CLEARING_INTERVAL_NS
        told = Clearing(
            model=self._about.model,
            input_tokens_max=self._about.input_tokens_max,
            input_price_ucr=0,
            output_price_ucr=0,
            ttft_ns=0,
            tokens_per_s_milli=limits.U63_MAX,
            sellers=SELLERS_TOLD,
        )
        context = self.context
        signed = sign_envelope(context.signer, context.network, told, now_ns)
        return [act.Publish(signed.data)]
