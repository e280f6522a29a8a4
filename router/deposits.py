"""The payer's deposits at a quorum: orders in a row, each certified before the next. Sans-IO.

Rule: protocol/README.md, "Locking".
"""

from dataclasses import dataclass, field
from typing import Final

from protocol import limits, messages, signing
from protocol.channel import Channel
from protocol.errors import RemoteError
from protocol.fields import DepositOrder, WitnessSignature, WitnessSignatures
from protocol.records import DepositOrdered, DepositProved
from router.actions import SessionKey
from router.anchor import AnchorListener
from router.context import Context
from router.inquiries import Inquiries
from router.witness import Quorum

LOCK: Final = "lock"


@dataclass(slots=True)
class _Answers:
    """What witnesses said of one order, by witness."""

    signatures: dict[bytes, bytes] = field(default_factory=dict)
    refusals: dict[bytes, str] = field(default_factory=dict)
    told: bool = False


class Deposits:
    """Our orders at the witnesses."""

    def __init__(
        self, context: Context, quorum: Quorum, inquiries: Inquiries, listener: AnchorListener
    ) -> None:
        self._context = context
        self._quorum = quorum
        self._inquiries = inquiries
        self._listener = listener
        self._answers: dict[int, _Answers] = {}
        self._caught_up: dict[bytes, int] = {}  # what a witness last asked for on its stream

    def order(self, channel: Channel, deposit_ucr: int) -> None:
        """Log an order for this deposit in all; it is asked for when all before are certified."""
        context = self._context
        sequence = len(context.ledger.backing.orders)
        signed = signing.order_bytes(context.network, channel.cid, deposit_ucr, sequence)
        order = DepositOrder(
            payer=channel.payer,
            payee=channel.payee,
            payer_salt=channel.payer_salt,
            payee_salt=channel.payee_salt,
            terms=channel.terms,
            deposit_ucr=deposit_ucr,
            sequence=sequence,
            signature=context.signer.sign(signed),
        )
        context.append(DepositOrdered(order))
        self.ask_pending()

    def ask_pending(self) -> None:
        """Ask for the order that is next."""
        order = self._context.ledger.backing.pending()
        if order is not None:
            cid = self._context.ledger.backing.cid(order)
            self._inquiries.ask((LOCK, cid, order.sequence), messages.LockAsk(order, ()))

    def connected(self, peer: bytes) -> None:
        """A new stream: nothing was sent on it."""
        self._caught_up.pop(peer, None)

    def take_receipt(self, peer: bytes, message: messages.LockReceipt) -> None:
        """A witness holds an order. RemoteError `witness.bad_signature`."""
        context, backing = self._context, self._context.ledger.backing
        order = backing.pending()
        key = (LOCK, message.cid, message.sequence)
        if order is None or order.sequence != message.sequence:
            self._inquiries.answered(key, peer)
            return
        signed = signing.deposit_bytes(
            context.network, backing.cid(order), order.deposit_ucr, order.sequence
        )
        if not context.verify(peer, signed, message.signature):
            raise RemoteError("witness.bad_signature", "receipt")
        self._inquiries.answered(key, peer)
        answers = self._answers.setdefault(order.sequence, _Answers())
        answers.signatures[peer] = message.signature
        if len(answers.signatures) >= self._quorum.threshold:
            self._certified(order, signatures_of(answers.signatures))

    def _certified(self, order: DepositOrder, signatures: WitnessSignatures) -> None:
        """A threshold signed: log it, tell all witnesses, go on with the next order."""
        context, cid = self._context, self._context.ledger.backing.cid(order)
        context.append(DepositProved(order, signatures))
        del self._answers[order.sequence]
        self._inquiries.ask((LOCK, cid, order.sequence), messages.LockAsk(order, signatures))
        context.note("deposit.certified", cid=cid, deposit_ucr=order.deposit_ucr)
        self._listener.funded(cid)
        self.ask_pending()

    def take_refusal(self, peer: bytes, message: messages.WitnessRefuse) -> None:
        """A witness does not hold an order, or not yet."""
        if message.code == "witness.behind":
            self._catch_up(peer, message.sequence)
            return
        backing = self._context.ledger.backing
        order = backing.pending()
        if order is None or backing.cid(order) != message.cid:
            return
        answers = self._answers.setdefault(order.sequence, _Answers())
        answers.refusals[peer] = message.code
        spare = len(self._quorum.members) - self._quorum.threshold
        if len(answers.refusals) > spare and not answers.told:
            answers.told = True
            self._listener.refused(message.cid, message.code)

    def _catch_up(self, peer: bytes, first: int) -> None:
        """The witness missed certificates of ours: send some, then the order again."""
        if first <= self._caught_up.get(peer, -1):
            return  # it was sent these on this stream
        self._caught_up[peer] = first
        backing = self._context.ledger.backing
        order = backing.pending()
        last = min(first + limits.WITNESS_CATCH_UP, len(backing.orders))
        session = SessionKey(peer, outbound=True)
        for number in range(first, last):
            proof = backing.certificate(number)
            if proof is not None:
                self._context.send(session, messages.LockAsk(proof.order, proof.signatures))
        if order is not None and first < order.sequence:
            self._context.send(session, messages.LockAsk(order, ()))


def signatures_of(by_witness: dict[bytes, bytes]) -> WitnessSignatures:
    """As they travel: by rising key of the witness."""
    return tuple(WitnessSignature(witness, by_witness[witness]) for witness in sorted(by_witness))
