"""A payer made by hand beside an honest provider node: it can sign any lie it likes.

Drives the provider sans-IO; the engine never runs unless a test feeds it.
"""

from dataclasses import replace
from typing import Any

from protocol import crypto, signing, wire
from protocol.channel import Channel, Role
from protocol.crypto import Signer
from protocol.envelope import Signed, open_envelope, sign_envelope
from protocol.fields import ChannelOpen, GenerationParameters, LaneClaim
from protocol.framing import HEADER_BYTES, frame
from protocol.messages import Award, Bid, Request, Voucher
from protocol.transcript import prompt_commitment
from protocol.units import NS_PER_S
from router import actions as act
from router.actions import Action, SessionKey
from router.anchoring import AnchorSettings
from router.ledger import Ledger
from router.node import Node
from simnet.entropy import Entropy
from tests.router.support import PROMPT, offer
from tests.router.test_auction import make_request

NETWORK = "net"
KEY = bytes([3]) * 32
SEED = bytes([4]) * 32
PARAMETERS = GenerationParameters(40, 0, 0, 1000, 1, ())


class Shop:
    """An honest provider node with a standard offer, its clock and its log."""

    def __init__(self, credit_ucr: int = 2_000_000) -> None:
        self.signer = Signer(bytes([8]) * 32)
        self.now_ns = 1_700_000_000 * NS_PER_S
        self.ledger = Ledger(NETWORK, self.signer.public_key)
        entropy = Entropy(1, "shop").bytes
        self.node = Node(
            self.signer, NETWORK, self.ledger, entropy=entropy, anchor=AnchorSettings(credit_ucr)
        )
        self.give(act.OffersChanged((offer(),)))

    def give(self, item: act.Input) -> list[Action]:
        """Hand the node one input."""
        return self.node.receive(item, self.now_ns)

    def wait(self, duration_ns: int) -> list[Action]:
        """Let time pass, with every timer that falls due."""
        end_ns, actions = self.now_ns + duration_ns, []
        while (at_ns := self.node.next_timer()) is not None and at_ns <= end_ns:
            self.now_ns = max(self.now_ns, at_ns)
            actions += self.node.handle_timer(self.now_ns)
        self.now_ns = end_ns
        return actions


def said(actions: list[Action]) -> list[Any]:
    """The messages among the actions."""
    sends = [action for action in actions if isinstance(action, act.Send)]
    return [wire.decode(send.data[HEADER_BYTES:]) for send in sends]


def of_kind(actions: list[Action], kind: type) -> list[Any]:
    """The actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]


def blamed(actions: list[Action]) -> list[str]:
    """The codes of the offences among the actions."""
    return [action.code for action in of_kind(actions, act.Penalize)]


class HandPayer:
    """Publishes a request, opens the bid, and awards it; every step can be bent."""

    def __init__(self, shop: Shop, number: int = 1) -> None:
        self.shop = shop
        self.signer = Signer(crypto.digest(b"hand", bytes([number])))
        self.session = SessionKey(self.signer.public_key, outbound=False)
        self.lane = 0
        self.opening: ChannelOpen | None = None
        self.cid = bytes(32)
        shop.give(act.SessionOpened(self.session))

    def ask(self, **changes: Any) -> tuple[Signed, Signed]:
        """Publish; the request and the bid."""
        now_ns = self.shop.now_ns
        fields: dict[str, Any] = {
            "output_tokens_max": 40,
            "deadline_ns": now_ns + 60 * NS_PER_S,
            "ephemeral_key": crypto.box_public_key(SEED),
            "prompt_commitment": prompt_commitment(PROMPT, KEY),
        }
        message: Request = replace(make_request().message, **(fields | changes))
        request = sign_envelope(self.signer, NETWORK, message, now_ns)
        (sent,) = of_kind(self.shop.give(act.GossipReceived(request)), act.SendBid)
        plain = crypto.unseal(SEED, wire.decode(sent.data).sealed)
        return request, open_envelope(plain, NETWORK, now_ns, allowed=(Bid,))

    def open(self, bid: Bid, **changes: Any) -> ChannelOpen:
        """A channel on the bid's terms, signed; changes are signed too."""
        opening = ChannelOpen(
            bytes([6]) * 16, bid.payee_salt, bid.terms, 500_000, self.shop.now_ns, bytes(64)
        )
        opening = replace(opening, **changes)
        self.cid = signing.channel_id(
            NETWORK,
            self.signer.public_key,
            self.shop.signer.public_key,
            opening.payer_salt,
            opening.payee_salt,
            opening.terms,
        )
        layout = signing.open_bytes(NETWORK, self.cid, opening.deposit_ucr, opening.opened_at_ns)
        self.opening = replace(opening, signature=self.signer.sign(layout))
        return self.opening

    def award(self, request: Signed, bid: Signed, **changes: Any) -> Award:
        """An award in order, on a new channel the first time; changes are signed too."""
        opening = None
        if self.lane == 0 and "open" not in changes and "cid" not in changes:
            opening = self.open(bid.message)
        self.lane += 1
        award = Award(
            request_id=request.digest,
            bid_id=bid.digest,
            cid=self.cid,
            lane=self.lane,
            prompt=PROMPT,
            prompt_key=KEY,
            parameters=PARAMETERS,
            open=opening,
            voucher=None,
            signature=bytes(64),
        )
        award = replace(award, **changes)
        if "signature" in changes:
            return award
        layout = signing.award_bytes(
            NETWORK,
            award.request_id,
            award.bid_id,
            award.cid,
            award.lane,
            prompt_commitment(award.prompt, award.prompt_key),
            award.parameters,
        )
        return replace(award, signature=self.signer.sign(layout))

    def voucher(self, total_ucr: int, lanes: tuple[LaneClaim, ...] = (), **lies: Any) -> Voucher:
        """A voucher; `signer`, `network` and `cid` can be someone else's."""
        cid = lies.get("cid", self.cid)
        signer: Signer = lies.get("signer", self.signer)
        network = lies.get("network", NETWORK)
        layout = signing.voucher_bytes(network, cid, total_ucr, lanes)
        return Voucher(cid, total_ucr, lanes, signer.sign(layout))

    def send(self, message: Any) -> list[Action]:
        """Send one message; what the provider did."""
        return self.send_bytes(frame(wire.encode(message)))

    def send_bytes(self, data: bytes) -> list[Action]:
        """Send bytes as they are."""
        return self.shop.give(act.SessionData(self.session, data))

    def start(self, tokens: int = 0) -> tuple[bytes, list[Action]]:
        """A job in order, with `tokens` tokens from the engine; its id and what was done."""
        request, bid = self.ask()
        actions = self.send(self.award(request, bid))
        (job,) = of_kind(actions, act.StartJob)
        actions += self.shop.give(act.JobStarted(job.job_id, 12))
        for _ in range(tokens):
            actions += self.shop.give(act.JobTokens(job.job_id, (("x", 1),)))
        return job.job_id, actions

    def channel(self) -> Channel:
        """The provider's view of the channel."""
        return self.shop.ledger.channels[self.cid]

    def channels(self) -> list[Channel]:
        """All channels that the provider has with this payer."""
        return self.shop.ledger.with_peer(self.signer.public_key, Role.PAYEE)
