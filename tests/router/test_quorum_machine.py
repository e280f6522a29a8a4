"""A quorum under a payer that does anything: no funds stand behind two channels, and a payee
with a certificate collects.

Source: protocol/README.md, "Witnesses". n witnesses of which f lie; honest ones and the payee
crash at any action; streams break; the payer signs whatever it likes and shows it to whom it
likes. The payee is reachable once in a challenge period, which is what it is told to be.
"""

from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol import messages, signing
from protocol.channel import Channel
from protocol.errors import RemoteError
from protocol.fields import DepositOrder, WitnessSignature
from router.actions import SessionKey
from tests.router.quorum_support import (
    CHALLENGE_NS,
    GRANT,
    NETWORK,
    TERMS,
    Client,
    Host,
    Net,
    WitnessHost,
    assert_sound,
    signer,
)

ANY = st.sampled_from([127, 127, 127, 1, 2, 3, 6, 7, 14, 21, 42, 63, 120])  # of the witnesses
SHAPES = ((3, 2, 0), (4, 3, 1), (5, 4, 2), (7, 5, 2))  # n, t, f = 2t - n - 1 at most


class Payer(Host):
    """Keeps every signature that any witness ever gave it."""

    def start(self) -> None:
        self.receipts: dict[tuple[bytes, int, int], dict[bytes, bytes]] = {}

    def take(self, session: SessionKey, message: Any) -> None:
        if isinstance(message, messages.LockReceipt):
            key = (message.cid, message.deposit_ucr, message.sequence)
            self.receipts.setdefault(key, {})[session.peer] = message.signature


class QuorumMachine(RuleBasedStateMachine):
    """The rules are what the payer, the network and the disk may do."""

    @initialize(shape=st.sampled_from(SHAPES))
    def build(self, shape: tuple[int, int, int]) -> None:
        count, threshold, liars = shape
        self.net = Net(count, threshold, liars)
        self.payer = Payer(self.net, "payer")
        self.payee = Client(self.net, "payee")
        for witness in self.net.honest:
            witness.grant({self.payer.key: GRANT})
        self.orders: list[DepositOrder] = []
        self.channels: dict[bytes, Channel] = {}
        self.stopped: dict[bytes, None] = {}  # the payee knows of a close: sells no more on it

    # --- the payer -------------------------------------------------------------------------

    @rule(
        salt=st.integers(0, 5),
        amount=st.sampled_from([1, GRANT // 3, GRANT // 2, GRANT - 1, GRANT, GRANT + 1]),
        ahead=st.sampled_from([0, 0, 0, 0, 1, -1]),
        chosen=ANY,
    )
    def order(self, salt: int, amount: int, ahead: int, chosen: int) -> None:
        """Any order to any of the witnesses; liars sign it in any case."""
        accounts = [witness.context.ledger.vault.accounts for witness in self.net.honest]
        following = max(one[self.payer.key].next_order for one in accounts)
        sequence = max(0, following + ahead)
        salts = bytes([salt]) * 16, bytes(16)
        payer, payee = self.payer.key, self.payee.key
        cid = signing.channel_id(NETWORK, payer, payee, *salts, TERMS)
        signature = self.payer.signer.sign(signing.order_bytes(NETWORK, cid, amount, sequence))
        order = DepositOrder(payer, payee, *salts, TERMS, amount, sequence, signature)
        if order not in self.orders:
            self.orders.append(order)
        for liar in self.net.liars:
            self.payer.take(SessionKey(liar.key, True), liar.receipt(order))
        self._tell(chosen, messages.LockAsk(order, ()))

    def _tell(self, chosen: int, message: Any) -> None:
        for index, witness in enumerate(self.net.honest):
            if chosen >> index & 1:
                witness.context.now_ns = self.net.now_ns
                self._hand(witness, SessionKey(self.payer.key, False), message)

    def _hand(self, witness: WitnessHost, session: SessionKey, message: Any) -> None:
        self.net.links[self.payer.key, witness.key] = True
        with suppress(RemoteError):
            witness.take(session, message)
        witness.flush()
        pair = (witness.key, self.payer.key)
        while self.net.queues.get(pair):
            self.net.deliver(pair)

    def _certificates(self) -> list[messages.DepositProof]:
        """All that the payer can make of the signatures that it has."""
        found = []
        for order in self.orders:
            cid = self.payee.context.ledger.backing.cid(order)
            given = self.payer.receipts.get((cid, order.deposit_ucr, order.sequence), {})
            if len(given) >= self.net.quorum.threshold:
                signatures = tuple(WitnessSignature(key, given[key]) for key in sorted(given))
                found.append(messages.DepositProof(order, signatures))
        return found

    @precondition(lambda self: self._certificates())
    @rule(which=st.integers(0, 7), chosen=ANY)
    def spread(self, which: int, chosen: int) -> None:
        """Tell some witnesses what is certified."""
        certificates = self._certificates()
        proof = certificates[which % len(certificates)]
        self._tell(chosen, messages.LockAsk(proof.order, proof.signatures))

    @precondition(lambda self: self._certificates())
    @rule(which=st.integers(0, 7))
    def open(self, which: int) -> None:
        """Show the payee a certificate that is new to it: it opens, if no witness has settled.

        The channel's id holds a salt from the payee's last half minute, so it can't have.
        """
        certificates = self._certificates()
        proof = certificates[which % len(certificates)]
        cid = self.payee.context.ledger.backing.cid(proof.order)
        if cid not in self.channels and not self._closing(cid):
            channel = self.payee.accept(proof)
            assert channel is not None
            self.channels[cid] = channel

    def _closing(self, cid: bytes) -> bool:
        held = [witness.context.ledger.vault.channels.get(cid) for witness in self.net.honest]
        return any(one and (one.settled_ucr is not None or one.deadline_ns) for one in held)

    @precondition(lambda self: self.channels)
    @rule(which=st.integers(0, 3), tenths=st.integers(1, 10))
    def pay(self, which: int, tenths: int) -> None:
        """A better voucher, unless the payee knows that the channel is being closed."""
        cid = list(self.channels)[which % len(self.channels)]
        channel = self.payee.context.ledger.channels[cid]
        total = -(-channel.deposit_ucr * tenths // 10)
        if cid not in self.stopped and total > channel.total_ucr:
            self.payee.paid(channel, self.payer.signer, total)

    @rule(salt=st.integers(0, 5), amount=st.sampled_from([1, GRANT // 3, GRANT]), chosen=ANY)
    def deal(self, salt: int, amount: int, chosen: int) -> None:
        """As an honest payer would, but that only some hear of it."""
        for proof in self._certificates():
            self._tell(chosen, messages.LockAsk(proof.order, proof.signatures))
        self.order(salt, amount, 0, chosen)
        for number in range(len(self._certificates())):
            self.open(number)

    @precondition(lambda self: self.orders)
    @rule(which=st.integers(0, 7), chosen=ANY, opened=st.booleans())
    def close(self, which: int, chosen: int, opened: bool) -> None:
        """Close at some witnesses, without a voucher: what the payee took, or anything."""
        cids = [self.payee.context.ledger.backing.cid(order) for order in self.orders]
        cids = list(self.channels) if opened and self.channels else cids
        self._tell(chosen, messages.ClaimAsk(cids[which % len(cids)], None, 1))

    # --- the payee, the network and the disks ------------------------------------------------

    @precondition(lambda self: self.channels)
    @rule(which=st.integers(0, 3), chosen=ANY, survive=st.integers(0, 9))
    def claim(self, which: int, chosen: int, survive: int) -> None:
        """The payee claims at some witnesses, and one of the two crashes on the way."""
        cid = list(self.channels)[which % len(self.channels)]
        self.payee.quorum.claim(self.payee.context, self.payee.context.ledger.channels[cid])
        self.payee.flush(survive if survive % 2 else None)
        for index, key in enumerate(self.net.quorum.members):
            if chosen >> index & 1:
                self.net.up(self.payee, self.net.hosts[key])
        for pair in self.net.waiting():
            if self.net.queues.get(pair):
                self.net.deliver(pair, survive)

    @rule(which=st.integers(0, 6))
    def crash(self, which: int) -> None:
        """A witness, or the payee, loses all but its log."""
        hosts = [*self.net.honest, self.payee]
        host = hosts[which % len(hosts)]
        self.net.cut_all(host)
        host.restart()
        host.flush()

    @rule()
    def wait(self) -> None:
        """A challenge period passes, in which the payee once reached every honest witness."""
        self._payee_looks()
        self.net.advance(CHALLENGE_NS)
        self.net.advance(CHALLENGE_NS)

    def _payee_looks(self) -> None:
        for cid in self.channels:
            self.payee.context.now_ns = self.net.now_ns
            self.payee.quorum.watch(self.payee.context, self.payee.context.ledger.channels[cid])
            self.payee.flush()
        for witness in self.net.honest:
            if not self.net.links.get((self.payee.key, witness.key)):
                self.net.up(self.payee, witness)
        self.net.settle_down()
        for cid in self.channels:
            if self._closing(cid):
                self.stopped[cid] = None

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    def witnesses_are_sound(self) -> None:
        """Free + locked is what was granted, and the log says so, at every honest witness."""
        for witness in (getattr(self, "net", None) and self.net.honest) or ():
            assert_sound(witness)

    @invariant()
    def funds_stand_behind_one_channel(self) -> None:
        """All that the payer could ever show of channels that nobody settled is what it has."""
        if not hasattr(self, "net"):
            return
        best: dict[bytes, int] = {}
        numbers: dict[int, DepositOrder] = {}
        for proof in self._certificates():
            cid = self.payee.context.ledger.backing.cid(proof.order)
            best[cid] = max(best.get(cid, 0), proof.order.deposit_ucr)
            assert numbers.setdefault(proof.order.sequence, proof.order) == proof.order
        open_ucr = sum(best[cid] for cid in best if not self._closing(cid))
        assert open_ucr <= GRANT

    @invariant()
    def settled_at_no_less_than_the_voucher(self) -> None:
        """Where an honest witness settled a channel that the payee took, the payee was paid."""
        for cid in getattr(self, "channels", ()):
            channel = self.payee.context.ledger.channels[cid]
            for witness in self.net.honest:
                held = witness.context.ledger.vault.channels.get(cid)
                if held is not None and held.settled_ucr is not None:
                    assert held.settled_ucr == min(channel.total_ucr, held.deposit_ucr)

    def teardown(self) -> None:
        """The payee collects all of its vouchers, at every honest witness."""
        if not hasattr(self, "net"):
            return
        self._payee_looks()
        for cid in self.channels:
            channel = self.payee.context.ledger.channels[cid]
            self.payee.quorum.claim(self.payee.context, channel)
            self.payee.flush()
            self.net.settle_down()
            for witness in self.net.honest:
                held = witness.context.ledger.vault.channels[cid]
                assert held.paid_ucr == channel.total_ucr, "not collected"
                assert_sound(witness)


QuorumMachine.TestCase.settings = settings(
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestQuorum = QuorumMachine.TestCase


def test_the_shapes_are_at_the_limit() -> None:
    """One liar more and two quorums could meet in liars alone."""
    for count, threshold, liars in SHAPES:
        assert liars <= 2 * threshold - count - 1
    assert signer("payer").public_key != signer("payee").public_key
