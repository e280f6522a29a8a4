"""Deposits held by a quorum of witnesses: the client's side, as an Anchor. Sans-IO.

Whatever is asked of a witness is asked again when it is connected again, until it answers; so
a crash or a lost stream on either side changes nothing. Rule: protocol/README.md, "Witnesses".
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from protocol import limits, messages, signing
from protocol.channel import Channel, Role
from protocol.errors import RemoteError
from protocol.records import DepositProved, DepositSettled, VoucherIssued
from router.actions import SessionKey
from router.anchor import Anchor, AnchorListener
from router.context import Context
from router.deposits import LOCK, Deposits, signatures_of
from router.inquiries import Inquiries
from router.ledger import Ledger
from router.timers import TimerKey
from router.witness import Quorum

_CLAIM, _SETTLE, _LOOK, _ACCOUNT = "claim", "settle", "look", "account"


class WitnessQuorum(Anchor):
    """Deposits count when a threshold of the configured witnesses signed that it holds them.

    `connect` opens a stream to a witness unless it is up, when `is_up` says so.
    """

    def __init__(
        self,
        context: Context,
        quorum: Quorum,
        *,
        deposit_max_ucr: int,
        connect: Callable[[bytes], None],
        is_up: Callable[[bytes], bool],
        listener: AnchorListener,
    ) -> None:
        self._context = context
        self._quorum = quorum
        self._deposit_max_ucr = deposit_max_ucr
        self._listener = listener
        self._inquiries = Inquiries(context, quorum.members, connect, is_up)
        self._deposits = Deposits(context, quorum, self._inquiries, listener)
        self._settlements: dict[bytes, dict[int, dict[bytes, bytes]]] = {}
        self._claimed: dict[bytes, int] = {}  # the total that all were asked to pay, by channel
        self._shown: OrderedDict[bytes, messages.DepositProof] = OrderedDict()
        self.accounts: dict[bytes, messages.Account] = {}

    # --- the Anchor ------------------------------------------------------------------------

    def deposit_max_ucr(self, ledger: Ledger, payer: bytes) -> int:
        """Whatever the witnesses will hold, up to the payee's own limit."""
        return self._deposit_max_ucr

    def verify_deposit(
        self, ledger: Ledger, cid: bytes, payer: bytes, deposit_ucr: int, held_ucr: int
    ) -> None:
        """The payer showed a certificate for at least this. RemoteError `channel.no_proof`."""
        shown = self._shown.get(cid)
        best = shown.order.deposit_ucr if shown is not None else 0
        if max(best, ledger.backing.proved_ucr(cid)) < deposit_ucr:
            raise RemoteError("channel.no_proof", penalize=False)

    def take_proof(self, peer: bytes, message: messages.DepositProof) -> None:
        """A payer shows what stands behind a channel. RemoteError `witness.bad_signature`."""
        order = message.order
        cid = self._context.ledger.backing.cid(order)
        if order.payer != peer or order.payee != self._context.public_key:
            raise RemoteError("witness.bad_order", "not between us")
        if not self._quorum.certifies(self._context, order, cid, message.signatures):
            raise RemoteError("witness.bad_signature", penalize=False)
        self._shown[cid] = message
        self._shown.move_to_end(cid)
        while len(self._shown) > limits.PROOFS_WAITING_MAX:
            self._shown.popitem(last=False)

    def keep_proof(self, context: Context, cid: bytes) -> None:
        """Log the certificate behind the channel's record, and look whether it still stands."""
        shown = self._shown.pop(cid, None)
        if shown is not None:
            context.append(DepositProved(shown.order, shown.signatures))
        self._look(cid, *self._certificate(cid))

    def top_up(self, context: Context, channel: Channel, deposit_ucr: int) -> bool:
        """True when it is certified; the certificate then goes to the payee."""
        backing = context.ledger.backing
        proof = backing.proof(channel.cid)
        if proof is not None and proof.order.deposit_ucr >= deposit_ucr:
            shown = messages.DepositProof(proof.order, proof.signatures)
            context.send(SessionKey(channel.payee, outbound=True), shown)
            return True
        if backing.ordered_ucr(channel.cid) < deposit_ucr:
            self._deposits.order(channel, deposit_ucr)
        return False

    def claim(self, context: Context, channel: Channel) -> None:
        """Have the best voucher paid; the channel goes on."""
        self._claim(channel, closing=0)

    def request_close(self, context: Context, channel: Channel) -> int:
        """Show our best voucher and begin to close, at every witness."""
        self._claim(channel, closing=1)
        return context.now_ns + channel.terms.challenge_ns

    def finalize(self, context: Context, channel: Channel) -> int | None:
        """What a threshold of witnesses settled at; until then they are asked."""
        settled = context.ledger.backing.settled.get(channel.cid)
        if settled is not None:
            return settled.settled_ucr
        self._inquiries.ask((_LOOK, channel.cid, 0), messages.ChannelAsk(channel.cid))
        return None

    def settle_agreed(
        self, context: Context, cid: bytes, total_ucr: int, by_payer: bytes, by_payee: bytes
    ) -> None:
        """Both ends closed by agreement: the witnesses pay out at once."""
        agreed = messages.SettleAsk(cid, total_ucr, by_payer, by_payee)
        self._inquiries.ask((_SETTLE, cid, 0), *self._certificate(cid), agreed)

    @property
    def pays_out(self) -> bool:
        """Witnesses hold the deposits."""
        return True

    @property
    def asking(self) -> bool:
        """Whether a witness that is connected has yet to answer."""
        return self._inquiries.awaited()

    def balances(self) -> dict[bytes, int]:
        """What each witness said that we have free."""
        return {key: account.free_ucr for key, account in self.accounts.items()}

    def release(self, context: Context, channel: Channel) -> None:
        """Close it alone, without a voucher; the witnesses give it back after the challenge."""
        if context.ledger.backing.ordered_ucr(channel.cid):
            ask = messages.ClaimAsk(channel.cid, None, 1)
            key = (_CLAIM, channel.cid, 1)
            self._inquiries.ask(key, *self._certificate(channel.cid), ask)

    def watch(self, context: Context, channel: Channel) -> int | None:
        """Ask the witnesses, and again in a quarter of the challenge period."""
        self._look(channel.cid)
        return context.now_ns + max(limits.WITNESS_RETRY_NS, channel.terms.challenge_ns // 4)

    # --- asking ----------------------------------------------------------------------------

    def start(self) -> None:
        """After a restart: go on with what was ordered, and look after what we may lose."""
        self._deposits.ask_pending()
        for channel in list(self._context.ledger.channels.values()):
            if channel.role is Role.PAYEE and channel.is_open:
                self._look(channel.cid, *self._certificate(channel.cid))

    def ask_accounts(self) -> None:
        """Have every witness say what we have with it."""
        ours = self._context.public_key
        self._inquiries.ask((_ACCOUNT, ours, 0), messages.AccountAsk(ours))

    def _certificate(self, cid: bytes) -> tuple[messages.LockAsk, ...]:
        """What a witness that never heard of the channel needs first."""
        proof = self._context.ledger.backing.proof(cid)
        return () if proof is None else (messages.LockAsk(proof.order, proof.signatures),)

    def _claim(self, channel: Channel, *, closing: int) -> None:
        context, voucher = self._context, channel.voucher
        if channel.role is Role.PAYER and channel.total_ucr:
            claims = channel.claims()
            context.append(VoucherIssued(channel.cid, channel.total_ucr, claims))
            signed = signing.voucher_bytes(context.network, channel.cid, channel.total_ucr, claims)
            signature = context.signer.sign(signed)
            voucher = messages.Voucher(channel.cid, channel.total_ucr, claims, signature)
        ask = messages.ClaimAsk(channel.cid, voucher, closing)
        self._claimed[channel.cid] = channel.total_ucr
        key = (_CLAIM, channel.cid, closing)
        self._inquiries.ask(key, *self._certificate(channel.cid), ask)

    def connected(self, peer: bytes) -> None:
        """A stream to a peer is up; if it is a witness, ask what it has not answered."""
        self._deposits.connected(peer)
        self._inquiries.connected(peer)

    def _look(self, cid: bytes, *first: Any) -> None:
        """Ask where the witnesses stand on a channel, and again in time to answer a close."""
        self._inquiries.ask((_LOOK, cid, 0), *first, messages.ChannelAsk(cid))
        channel = self._context.ledger.channel(cid)
        if channel is not None and channel.role is Role.PAYEE and channel.is_open:
            again_ns = max(limits.WITNESS_RETRY_NS, channel.terms.challenge_ns // 4)
            self._context.timers.set(TimerKey("watch", cid), self._context.now_ns + again_ns)

    def handle_timer(self, key: TimerKey) -> None:
        """Look at a channel again, or reach for the witnesses that are still to answer."""
        if key.kind == "watch":
            self._look(key.subject)
        else:
            self._inquiries.retry()

    # --- answers ---------------------------------------------------------------------------

    def take(self, peer: bytes, message: Any) -> None:
        """A witness's answer. RemoteError `session.protocol` from who is none,
        `witness.bad_signature`."""
        if peer not in self._quorum.members:
            raise RemoteError("session.protocol", "not a witness of ours")
        match message:
            case messages.LockReceipt():
                self._deposits.take_receipt(peer, message)
            case messages.ClaimNotice():
                self._take_notice(peer, message)
            case messages.Settlement():
                self._take_settlement(peer, message)
            case messages.Account():
                self._inquiries.answered((_ACCOUNT, message.account, 0), peer)
                self.accounts[peer] = message
            case messages.WitnessRefuse():
                self._take_refusal(peer, message)
            case _:
                raise RemoteError("session.protocol", type(message).__name__)

    def _take_refusal(self, peer: bytes, message: messages.WitnessRefuse) -> None:
        code = message.code
        self._context.note("witness.refusal", peer_id=peer, cid=message.cid, code=code)
        if code != "witness.behind":
            for key, _ in self._inquiries.of(message.cid):
                if key[0] != LOCK:
                    self._inquiries.answered(key, peer)
        self._deposits.take_refusal(peer, message)

    def _take_notice(self, peer: bytes, message: messages.ClaimNotice) -> None:
        for key, inquiry in self._inquiries.of(message.cid):
            if key[0] == _LOOK or (key[0] == _CLAIM and _satisfied(inquiry.messages[-1], message)):
                self._inquiries.answered(key, peer)
        channel = self._context.ledger.channel(message.cid)
        if channel is None or not message.deadline_ns:
            return
        better = channel.total_ucr > message.total_ucr
        claimed = self._claimed.get(message.cid, 0) >= channel.total_ucr
        if channel.role is Role.PAYEE and better and not claimed:
            self._claim(channel, closing=0)  # an end closes with less than we hold: answer
        self._listener.challenged(message.cid, message.total_ucr, message.deadline_ns)

    def _take_settlement(self, peer: bytes, message: messages.Settlement) -> None:
        context, cid = self._context, message.cid
        for key, _ in self._inquiries.of(cid):
            if key[0] != LOCK:
                self._inquiries.answered(key, peer)
        if cid in context.ledger.backing.settled or context.ledger.channel(cid) is None:
            return
        signed = signing.settlement_bytes(context.network, cid, message.settled_ucr)
        if not context.verify(peer, signed, message.signature):
            raise RemoteError("witness.bad_signature", "settlement")
        amounts = self._settlements.setdefault(cid, {})
        agreed = amounts.setdefault(message.settled_ucr, {})
        agreed[peer] = message.signature
        if len(agreed) >= self._quorum.threshold:
            context.append(DepositSettled(cid, message.settled_ucr, signatures_of(agreed)))
            del self._settlements[cid]
            self._listener.settled(cid, message.settled_ucr)


def _satisfied(asked: messages.ClaimAsk, notice: messages.ClaimNotice) -> bool:
    """Whether the notice shows that the claim was taken, and not only that it crossed it."""
    total_ucr = asked.voucher.total_ucr if asked.voucher is not None else 0
    return notice.total_ucr >= total_ucr and (bool(notice.deadline_ns) or not asked.closing)
