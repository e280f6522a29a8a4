"""The witness's role: holds deposits of others' channels, signs that it does, pays them out.

Sans-IO. Whatever it signs stands in its log first, and it answers the same when asked again.
Rule: protocol/README.md, "Witnesses".
"""

from dataclasses import dataclass
from typing import Any

from protocol import limits, messages, signing
from protocol.errors import RemoteError
from protocol.fields import DepositOrder, WitnessSignature
from protocol.records import (
    ClaimTaken,
    FundsGranted,
    FundsLocked,
    FundsSettled,
    OrderCertified,
)
from router.actions import SessionKey
from router.context import Context
from router.timers import TimerKey
from router.vault import Account, Held, Vault

ASKED = (
    messages.LockAsk,
    messages.ClaimAsk,
    messages.SettleAsk,
    messages.ChannelAsk,
    messages.AccountAsk,
)


@dataclass(frozen=True, slots=True)
class Quorum:
    """Who the witnesses are, and how many of them must sign."""

    members: tuple[bytes, ...]
    threshold: int

    def certifies(
        self,
        context: Context,
        order: DepositOrder,
        cid: bytes,
        given: tuple[WitnessSignature, ...],
    ) -> bool:
        """Whether enough of the members signed that they hold this order."""
        signed = signing.deposit_bytes(context.network, cid, order.deposit_ucr, order.sequence)
        return self.signed(context, signed, given)

    def signed(self, context: Context, what: bytes, given: tuple[WitnessSignature, ...]) -> bool:
        """Whether at least the threshold of distinct members signed `what`; none is bad."""
        names = [one.witness for one in given]
        distinct = len(set(names)) == len(names) >= self.threshold
        return distinct and all(
            one.witness in self.members and context.verify(one.witness, what, one.signature)
            for one in given
        )


class Witness:
    """This node as one witness of a quorum."""

    def __init__(self, context: Context, quorum: Quorum) -> None:
        self._context = context
        self._quorum = quorum
        self._ends: dict[bytes, SessionKey] = {}  # clients that are connected

    @property
    def _vault(self) -> Vault:
        return self._context.ledger.vault

    def start(self, granted: dict[bytes, int]) -> None:
        """Take the operator's grants over, and go on with what the log says is closing."""
        for account in sorted(granted):
            held = self._vault.accounts.get(account)
            if held is None or held.granted_ucr != granted[account]:
                self._context.append(FundsGranted(account, granted[account]))
        for cid, channel in self._vault.channels.items():
            if channel.deadline_ns:
                # Who answers a close has tried while we were down: let it try once more.
                soonest_ns = self._context.now_ns + limits.WITNESS_GRACE_NS
                at_ns = max(channel.deadline_ns, soonest_ns)
                self._context.timers.set(TimerKey("witness", cid), at_ns)

    def disconnected(self, peer: bytes) -> None:
        """The client's stream is gone."""
        self._ends.pop(peer, None)

    def take(self, session: SessionKey, message: Any) -> None:
        """Answer a client. RemoteError where it broke the protocol, after the refusal."""
        self._ends[session.peer] = session
        cid, payer = bytes(32), session.peer
        if isinstance(message, messages.LockAsk):
            cid, payer = self._vault.cid(message.order), message.order.payer
        elif not isinstance(message, messages.AccountAsk):
            cid = message.cid
        try:
            self._dispatch(session, message)
        except RemoteError as error:
            account = self._vault.accounts.get(payer) or Account()
            refusal = messages.WitnessRefuse(cid, error.code, account.next_order)
            self._context.send(session, refusal)
            self._context.note("witness.refused", peer_id=session.peer, code=error.code)
            if error.penalize:
                raise

    def _dispatch(self, session: SessionKey, message: Any) -> None:
        match message:
            case messages.LockAsk():
                self._lock(session, message)
            case messages.ClaimAsk():
                self._claim(session, message)
            case messages.SettleAsk():
                self._settle_agreed(session, message)
            case messages.ChannelAsk():
                self._answer(session, message.cid, self._held(message.cid))
            case messages.AccountAsk():
                if message.account != session.peer:
                    raise RemoteError("witness.unknown_account", "not the sender's")
                self._tell_account(session)

    def _tell_account(self, session: SessionKey) -> None:
        account = self._vault.accounts.get(session.peer) or Account()
        free, locked = max(0, account.free_ucr), account.locked_ucr
        answer = messages.Account(session.peer, free, locked, account.next_order)
        self._context.send(session, answer)

    # --- locking ---------------------------------------------------------------------------

    def _lock(self, session: SessionKey, message: messages.LockAsk) -> None:
        context, order = self._context, message.order
        cid = self._vault.cid(order)
        signed = signing.order_bytes(context.network, cid, order.deposit_ucr, order.sequence)
        if not context.verify(order.payer, signed, order.signature):
            raise RemoteError("witness.bad_order", "signature")
        if message.signatures:
            self._certify(cid, message)
        else:
            if session.peer != order.payer:
                raise RemoteError("witness.bad_order", "another's")
            self._sign(cid, order)
        signed = signing.deposit_bytes(context.network, cid, order.deposit_ucr, order.sequence)
        signature = context.signer.sign(signed)
        receipt = messages.LockReceipt(cid, order.deposit_ucr, order.sequence, signature)
        context.send(session, receipt)

    def _certify(self, cid: bytes, message: messages.LockAsk) -> None:
        """A threshold signed: it holds here too, whatever this witness thinks of the funds."""
        order = message.order
        if not self._quorum.certifies(self._context, order, cid, message.signatures):
            raise RemoteError("witness.bad_signature", penalize=False)
        account = self._vault.accounts.get(order.payer)
        if account is None:
            raise RemoteError("witness.unknown_account", penalize=False)
        if order.sequence >= account.next_order and order.sequence not in account.ahead:
            self._context.append(OrderCertified(order, message.signatures))
            self._context.note("witness.certified", cid=cid, deposit_ucr=order.deposit_ucr)

    def _sign(self, cid: bytes, order: DepositOrder) -> None:
        """Stand by an order, unless another of its number was signed or certified."""
        account = self._vault.accounts.get(order.payer)
        if account is None:
            raise RemoteError("witness.unknown_account", penalize=False)
        if order == account.pending:
            return
        if order.sequence < account.next_order or order.sequence in account.ahead:
            raise RemoteError("witness.conflict", "certified already", penalize=False)
        if order.sequence > account.next_order:
            raise RemoteError("witness.behind", penalize=False)
        if account.pending is not None:
            raise RemoteError("witness.conflict", "another is signed", penalize=False)
        more_ucr = self._vault.wanted_ucr(order)
        if not more_ucr:
            raise RemoteError("witness.bad_order", "it raises nothing", penalize=False)
        if more_ucr > account.free_ucr:
            raise RemoteError("witness.no_funds", f"{account.free_ucr} ucr", penalize=False)
        known = cid in self._vault.channels
        if not known and self._vault.open_channels >= limits.WITNESS_CHANNELS_MAX:
            raise RemoteError("witness.full", penalize=False)
        self._context.append(FundsLocked(order))
        self._context.note("witness.locked", cid=cid, deposit_ucr=order.deposit_ucr)

    # --- claims and closes -----------------------------------------------------------------

    def _held(self, cid: bytes) -> Held:
        held = self._vault.channels.get(cid)
        if held is None:
            raise RemoteError("channel.unknown", "to this witness", penalize=False)
        return held

    def _claim(self, session: SessionKey, message: messages.ClaimAsk) -> None:
        held = self._held(message.cid)
        better = message.voucher
        if better is not None:
            self._check_voucher(message.cid, held, better)
            if held.voucher is not None and better.total_ucr <= held.voucher.total_ucr:
                better = None
        if held.settled_ucr is not None:
            if better is not None and better.total_ucr > held.settled_ucr:
                raise RemoteError("channel.too_late", penalize=False)
            self._answer(session, message.cid, held)
            return
        if message.closing and session.peer not in (held.payer, held.payee):
            raise RemoteError("channel.unknown", "not an end of it")
        deadline_ns, begins = held.deadline_ns, bool(message.closing and not held.deadline_ns)
        if begins:
            deadline_ns = self._context.now_ns + max(1, held.terms.challenge_ns)
        if better is not None or begins:
            self._context.append(ClaimTaken(message.cid, better, deadline_ns))
        if begins:
            self._context.timers.set(TimerKey("witness", message.cid), deadline_ns)
            self._context.note("witness.closing", cid=message.cid, deadline_ns=deadline_ns)
            self._tell_ends(message.cid, held)
        if not begins or session.peer not in (held.payer, held.payee):
            self._answer(session, message.cid, held)

    def _check_voucher(self, cid: bytes, held: Held, voucher: messages.Voucher) -> None:
        context = self._context
        signed = signing.voucher_bytes(
            context.network, voucher.cid, voucher.total_ucr, voucher.lanes
        )
        if voucher.cid != cid or not context.verify(held.payer, signed, voucher.signature):
            raise RemoteError("channel.bad_signature", "voucher")
        if held.settled_ucr is None and voucher.total_ucr > held.certified_ucr:
            # Not before the certificate: an order that is only signed may still be released.
            raise RemoteError("channel.over_deposit", "shown here", penalize=False)

    def _settle_agreed(self, session: SessionKey, message: messages.SettleAsk) -> None:
        context, held = self._context, self._held(message.cid)
        total = message.total_ucr
        by_payer = signing.close_bytes(context.network, message.cid, total)
        by_payee = signing.close_ack_bytes(context.network, message.cid, total)
        if not (
            context.verify(held.payer, by_payer, message.payer_signature)
            and context.verify(held.payee, by_payee, message.payee_signature)
        ):
            raise RemoteError("channel.bad_signature", "close")
        if held.settled_ucr is None:
            if total > held.certified_ucr:
                raise RemoteError("channel.over_deposit", "shown here", penalize=False)
            self._settle(message.cid, held, max(total, held.paid_ucr))
        self._answer(session, message.cid, held)

    def handle_timer(self, key: TimerKey) -> None:
        """The challenge period of a channel is over."""
        held = self._vault.channels.get(key.subject)
        if held is not None and held.settled_ucr is None:
            self._settle(key.subject, held, held.paid_ucr)

    def _settle(self, cid: bytes, held: Held, settled_ucr: int) -> None:
        context = self._context
        context.timers.cancel(TimerKey("witness", cid))
        context.append(FundsSettled(cid, settled_ucr, context.now_ns))
        context.note("witness.settled", cid=cid, settled_ucr=settled_ucr)
        self._tell_ends(cid, held)

    def _tell_ends(self, cid: bytes, held: Held) -> None:
        for end in (held.payer, held.payee):
            session = self._ends.get(end)
            if session is not None:
                self._answer(session, cid, held)

    def _answer(self, session: SessionKey, cid: bytes, held: Held) -> None:
        """Where this witness stands on a channel."""
        context = self._context
        if held.settled_ucr is None:
            notice = messages.ClaimNotice(cid, held.paid_ucr, held.deadline_ns)
            context.send(session, notice)
            return
        signed = signing.settlement_bytes(context.network, cid, held.settled_ucr)
        signature = context.signer.sign(signed)
        context.send(session, messages.Settlement(cid, held.settled_ucr, signature))
