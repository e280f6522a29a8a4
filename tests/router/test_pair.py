"""One requester and one provider, bytes handed across by hand: no world, no clock, no engine.

Source: router/README.md, the driver's contract:
what comes out depends on what went in, not on how it was cut.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import crypto, signing
from protocol.channel import Role
from protocol.crypto import Signer
from protocol.fields import FinishReason
from protocol.framing import HEADER_BYTES
from protocol.messages import Award, Chunk, Receipt, ReceiptAck, Result, Voucher
from protocol.records import ReceiptAcknowledged, ReceiptCountersigned, decode_record
from protocol.transcript import transcript_next, transcript_start
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from protocol.wire import decode
from router import actions as act
from router import events
from router.actions import Action, Input, SessionKey
from router.ledger import Ledger
from router.node import Node
from simnet.entropy import Entropy
from tests.router.support import make_ask, offer

NETWORK = "pair"
TOKENS = 75
Cut = Callable[[bytes], list[bytes]]


class Side:
    """One node, and everything that it did."""

    def __init__(self, name: str) -> None:
        entropy = Entropy(1, name)
        self.signer = Signer(entropy.bytes(32))
        self.ledger = Ledger(NETWORK, self.signer.public_key)
        self.node = Node(self.signer, NETWORK, self.ledger, entropy=entropy.bytes)
        self.actions: list[Action] = []

    def sent(self) -> list[Any]:
        """The messages that this side sent on its stream."""
        frames = [action.data for action in self.actions if isinstance(action, act.Send)]
        return [decode(data[HEADER_BYTES:]) for data in frames]

    def records(self) -> list[Any]:
        """The records of this side's log."""
        appended = [action for action in self.actions if isinstance(action, act.Append)]
        return [decode_record(action.type, action.payload) for action in appended]


class Pair:
    """Feeds each side's actions to the other; `cut` decides how bytes arrive."""

    def __init__(self, cut: Cut) -> None:
        self.requester, self.provider = Side("requester"), Side("provider")
        self._cut = cut
        self._now_ns = 1_700_000_000 * NS_PER_S
        self._queue: deque[tuple[Side, list[Input]]] = deque()

    def run(self) -> None:
        """A complete job: ask to receipt, then a close."""
        self.give(self.provider, act.OffersChanged((offer(),)))
        self.give(self.requester, make_ask(tokens=TOKENS))
        while not any(isinstance(message, ReceiptAck) for message in self.requester.sent()):
            self._step()
        while self._queue:
            self._step()
        self.give(self.requester, act.CloseChannels(()))
        while self._queue:
            self._step()

    def give(self, side: Side, item: Input) -> None:
        """Hand one input to one side."""
        self._queue.append((side, [item]))

    def _step(self) -> None:
        if self._queue:
            side, items = self._queue.popleft()
            actions: list[Action] = []
            for item in items:
                actions += side.node.receive(item, self._now_ns)
        else:
            sides = (self.requester, self.provider)
            timers = [(side.node.next_timer(), side) for side in sides]
            at_ns, side = min(
                ((at_ns, side) for at_ns, side in timers if at_ns is not None),
                key=lambda timer: timer[0],
            )
            self._now_ns = at_ns
            actions = side.node.handle_timer(at_ns)
        side.actions += actions
        self._carry_out(side, actions)

    def _carry_out(self, side: Side, actions: list[Action]) -> None:
        other = self.provider if side is self.requester else self.requester
        me, them = side.signer.public_key, other.signer.public_key
        sent = b"".join(action.data for action in actions if isinstance(action, act.Send))
        if sent:
            session = SessionKey(me, outbound=side is self.provider)
            pieces: list[Input] = [act.SessionData(session, piece) for piece in self._cut(sent)]
            self._queue.append((other, pieces))
        for action in actions:
            match action:
                case act.Publish():
                    signed = other.node.admit(action.data, self._now_ns)
                    self.give(other, act.GossipReceived(signed))
                case act.SendBid():
                    self.give(other, act.BidReceived(me, action.data))
                case act.OpenSession():
                    self.give(other, act.SessionOpened(SessionKey(me, outbound=False)))
                    self.give(side, act.SessionOpened(SessionKey(them, outbound=True)))
                case act.StartJob():
                    assert action.payer == them, "the engine keeps prompts apart by who pays"
                    self._generate(side, action)

    def _generate(self, side: Side, start: act.StartJob) -> None:
        """An engine that takes the prompt, then makes all tokens in uneven batches."""
        self.give(side, act.JobStarted(start.job_id, 12))
        left, batch = start.parameters.output_tokens_max, 1
        while left:
            batch = min(left, batch + 3)
            pieces = tuple((f" {left - number}", 1) for number in range(batch))
            self.give(side, act.JobTokens(start.job_id, pieces))
            left -= batch
        total = start.parameters.output_tokens_max
        finished = act.JobFinished(
            start.job_id, FinishReason.LENGTH, total, NS_PER_MS, NS_PER_S, "test", ""
        )
        self.give(side, finished)


def whole(data: bytes) -> list[bytes]:
    """As it was sent, several frames together."""
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    """The worst stream there is."""
    return [data[at : at + 1] for at in range(len(data))]


def run_pair(cut: Cut) -> Pair:
    """A complete pair of jobs and a close."""
    pair = Pair(cut)
    pair.run()
    return pair


@pytest.fixture(scope="module")
def reference() -> Pair:
    """The run with whole frames, to compare the others with."""
    return run_pair(whole)


def test_the_job_completes_and_the_text_arrives(reference: Pair) -> None:
    """Every token once, in order, and one receipt for all of it."""
    told = [a.event for a in reference.requester.actions if isinstance(a, act.Deliver)]
    text = "".join(event.text for event in told if isinstance(event, events.Text))
    assert len(text.split()) == TOKENS
    done = [event for event in told if isinstance(event, events.Done)]
    assert [event.receipt.output_tokens for event in done] == [TOKENS]
    settled = [event for event in told if isinstance(event, events.ChannelSettled)]
    price = cost_ucr(12, TOKENS, 15_000_000, 60_000_000)
    assert [(event.settled_ucr, event.refund_ucr) for event in settled] == [
        (price, 1_000_000 - price)
    ]


def test_both_ledgers_agree(reference: Pair) -> None:
    """Conservation: what one spent the other earned, and nothing is locked after the close."""
    payer, payee = reference.requester.ledger, reference.provider.ledger
    price = cost_ucr(12, TOKENS, 15_000_000, 60_000_000)
    assert payer.balance().spent_ucr == payee.balance().earned_ucr == price
    assert payer.balance().locked_ucr == payee.balance().unpaid_ucr == 0
    assert payer.receipts == payee.receipts == 1
    (paying,), (earning,) = payer.channels.values(), payee.channels.values()
    assert (paying.role, earning.role) == (Role.PAYER, Role.PAYEE)
    assert (paying.cid, paying.due_ucr, paying.settled_ucr, paying.closed) == (
        earning.cid,
        earning.due_ucr,
        earning.settled_ucr,
        earning.closed,
    )


def test_the_receipt_verifies_from_the_messages_alone(reference: Pair) -> None:
    """Anyone with the frames can check: transcript, counts, price, both signatures."""
    (award,) = [m for m in reference.requester.sent() if isinstance(m, Award)]
    chunks = [m for m in reference.provider.sent() if isinstance(m, Chunk)]
    (result,) = [m for m in reference.provider.sent() if isinstance(m, Result)]
    (ack,) = [m for m in reference.requester.sent() if isinstance(m, ReceiptAck)]
    receipt: Receipt = result.receipt
    payer, payee = receipt.payer, receipt.payee
    transcript = transcript_start(
        NETWORK, award.request_id, award.bid_id, receipt.prompt_commitment
    )
    for number, chunk in enumerate(chunks, 1):
        assert chunk.sequence == number
        transcript = transcript_next(
            transcript, number, chunk.text, 12, chunk.output_tokens, chunk.due_ucr
        )
        layout = signing.chunk_bytes(NETWORK, chunk.cid, chunk.lane, number, transcript)
        assert crypto.verify(payee, layout, chunk.signature)
    assert (receipt.transcript, receipt.chunks) == (transcript, len(chunks))
    assert receipt.price_ucr == cost_ucr(12, TOKENS, 15_000_000, 60_000_000)
    identity = signing.receipt_id(receipt)
    assert ack.receipt_id == identity
    assert crypto.verify(payee, signing.receipt_bytes(NETWORK, identity), result.signature)
    assert crypto.verify(payer, signing.receipt_ack_bytes(NETWORK, identity), ack.signature)
    (kept,) = [r for r in reference.requester.records() if isinstance(r, ReceiptAcknowledged)]
    (counter,) = [r for r in reference.provider.records() if isinstance(r, ReceiptCountersigned)]
    assert (kept.receipt, kept.payer_signature) == (receipt, counter.payer_signature)


def test_vouchers_rise_and_each_verifies(reference: Pair) -> None:
    """The total is the nonce; the payer's signature is over the channel, total and lanes."""
    sent = reference.requester.sent()
    vouchers: list[Voucher] = [message.voucher for message in sent if isinstance(message, Award)]
    vouchers += [message for message in sent if isinstance(message, Voucher)]
    totals = [voucher.total_ucr for voucher in vouchers]
    assert len(totals) > 2
    assert totals == sorted(set(totals))
    payer = reference.requester.signer.public_key
    for voucher in vouchers:
        layout = signing.voucher_bytes(NETWORK, voucher.cid, voucher.total_ucr, voucher.lanes)
        assert crypto.verify(payer, layout, voucher.signature)


def assert_same(pair: Pair, reference: Pair) -> None:
    """Both sides did exactly the same: every action, byte for byte, in the same order."""
    assert pair.requester.actions == reference.requester.actions
    assert pair.provider.actions == reference.provider.actions


def test_byte_by_byte_gives_the_same_actions(reference: Pair) -> None:
    """A stream may deliver single bytes."""
    assert_same(run_pair(byte_by_byte), reference)


@given(st.randoms(use_true_random=False))
def test_any_cutting_gives_the_same_actions(reference: Pair, random: Any) -> None:
    """A stream may cut anywhere, within frames and across them."""

    def at_random(data: bytes) -> list[bytes]:
        inner = range(1, len(data))
        cuts = sorted(random.sample(inner, min(len(inner), random.randrange(6))))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    assert_same(run_pair(at_random), reference)
