"""Witnesses, payers and payees over links that break, each with a log and nothing else to keep.

Production cores on both ends; `Liar` is what a faulty witness may do at worst.
"""

from collections import deque
from typing import Any

from protocol import crypto, limits, messages, signing, wire
from protocol.channel import Channel, Role
from protocol.crypto import Signer
from protocol.errors import RemoteError
from protocol.fields import ChannelTerms, DepositOrder, WitnessSignature
from protocol.framing import HEADER_BYTES
from protocol.messages import Voucher
from protocol.records import ChannelOpened, VoucherAccepted, decode_record
from router import actions as act
from router.actions import SessionKey
from router.context import Context
from router.ledger import Ledger
from router.quorum import WitnessQuorum
from router.snapshot import restore, snapshot_parts
from router.witness import Quorum, Witness

NETWORK = "test"
EPOCH_NS = 10**18
CHALLENGE_NS = 10**12
TERMS = ChannelTerms(1_000, 10**9, 10**15, CHALLENGE_NS)
GRANT = 100


def signer(name: str) -> Signer:
    return Signer(crypto.digest(name.encode()))


class Host:
    """A node's core with its log; `crash` leaves the log alone."""

    def __init__(self, net: "Net", name: str) -> None:
        self.net = net
        self.signer = signer(name)
        self.log: list[tuple[int, bytes]] = []
        net.hosts[self.signer.public_key] = self
        self.restart()

    @property
    def key(self) -> bytes:
        return self.signer.public_key

    def replayed(self) -> Ledger:
        """The ledger that the log makes."""
        ledger = Ledger(NETWORK, self.key)
        for number, payload in self.log:
            ledger.apply(decode_record(number, payload))
        return ledger

    def restart(self) -> None:
        """From the log alone."""
        self.context = Context(self.signer, NETWORK, self.replayed(), bytes, self.net.verify)
        self.context.now_ns = self.net.now_ns
        self.start()

    def start(self) -> None:
        """What the role does first."""

    def flush(self, survive: int | None = None) -> None:
        """Carry out the actions; after `survive` of them the host crashes."""
        for done, action in enumerate(self.context.take_actions()):
            if survive is not None and done >= survive:
                self.net.cut_all(self)
                self.restart()
                self.flush()
                return
            if isinstance(action, act.Append):
                self.log.append((action.type, action.payload))
            elif isinstance(action, act.Send):
                message = wire.decode(action.data[HEADER_BYTES:])
                self.net.send(self, action.session, message)

    def take(self, session: SessionKey, message: Any) -> None:
        raise NotImplementedError

    def run_timers(self) -> None:
        """Those that are due."""


class Net:
    """Streams between clients and witnesses: in order, and all or nothing when they break."""

    def __init__(self, count: int, threshold: int, liars: int = 0) -> None:
        self.now_ns = EPOCH_NS
        self.hosts: dict[bytes, Host] = {}
        self.queues: dict[tuple[bytes, bytes], deque[tuple[SessionKey, Any]]] = {}
        self.links: dict[tuple[bytes, bytes], bool] = {}  # (client, witness) that are up
        self._memo: dict[tuple[bytes, bytes, bytes], bool] = {}
        keys = [signer(f"witness {index}").public_key for index in range(count)]
        self.quorum = Quorum(tuple(keys), threshold)
        self.liars = [Liar(self, f"witness {index}") for index in range(liars)]
        self.honest = [WitnessHost(self, f"witness {index}") for index in range(liars, count)]

    def verify(self, key: bytes, message: bytes, signature: bytes) -> bool:
        """Real signatures, each checked once."""
        memo = (key, message, signature)
        if memo not in self._memo:
            self._memo[memo] = crypto.verify(key, message, signature)
        return self._memo[memo]

    def send(self, sender: Host, session: SessionKey, message: Any) -> None:
        """Queue a message on a link that is up."""
        pair = (sender.key, session.peer)
        link = pair if session.outbound else pair[::-1]
        if self.links.get(link):
            back = SessionKey(sender.key, not session.outbound)
            self.queues.setdefault(pair, deque()).append((back, message))

    def up(self, client: "Client", witness: Host) -> None:
        """A stream is opened."""
        self.links[client.key, witness.key] = True
        client.quorum.connected(witness.key)
        client.flush()

    def cut(self, client: bytes, witness: bytes) -> None:
        """The stream breaks, with what is on it."""
        self.links[client, witness] = False
        self.queues.pop((client, witness), None)
        self.queues.pop((witness, client), None)
        host = self.hosts[witness]
        if isinstance(host, WitnessHost):
            host.witness.disconnected(client)

    def cut_all(self, host: Host) -> None:
        """All of a host's streams break."""
        for client, witness in list(self.links):
            if host.key in (client, witness):
                self.cut(client, witness)

    def waiting(self) -> list[tuple[bytes, bytes]]:
        """Directions in which something is on its way."""
        return [pair for pair, queue in self.queues.items() if queue]

    def deliver(self, pair: tuple[bytes, bytes], survive: int | None = None) -> None:
        """Hand the next message over; the receiver may crash after so many actions."""
        session, message = self.queues[pair].popleft()
        host = self.hosts[pair[1]]
        host.context.now_ns = self.now_ns
        try:
            host.take(session, message)
        except RemoteError:
            host.flush(survive)
            self.cut_all_of(pair)
            return
        host.flush(survive)

    def cut_all_of(self, pair: tuple[bytes, bytes]) -> None:
        """An offence ends the stream."""
        link = pair if pair in self.links else pair[::-1]
        self.cut(*link)

    def settle_down(self) -> None:
        """Deliver until nothing is on its way; bounded, so that a loop of answers is found."""
        for _ in range(20_000):
            waiting = self.waiting()
            if not waiting:
                return
            self.deliver(waiting[0])
        raise AssertionError("the talk does not end")

    def connect_all(self, client: "Client") -> None:
        """Every stream of a client is up, and all is said."""
        for key in self.quorum.members:
            if not self.links.get((client.key, key)):
                self.up(client, self.hosts[key])
        self.settle_down()

    def advance(self, duration_ns: int) -> None:
        """Time passes; timers run."""
        self.now_ns += duration_ns
        for host in list(self.hosts.values()):
            host.context.now_ns = self.now_ns
            host.run_timers()
            host.flush()


class WitnessHost(Host):
    """An honest witness; its operator grants GRANT to whoever the net names."""

    granted: dict[bytes, int]

    def start(self) -> None:
        self.witness = Witness(self.context, self.net.quorum)
        self.witness.start(getattr(self, "granted", {}))

    def grant(self, granted: dict[bytes, int]) -> None:
        """The operator's word."""
        self.granted = granted
        self.witness.start(granted)
        self.flush()

    def take(self, session: SessionKey, message: Any) -> None:
        self.witness.take(session, message)

    def run_timers(self) -> None:
        while (key := self.context.timers.pop_due(self.net.now_ns)) is not None:
            self.witness.handle_timer(key)


class Liar(Host):
    """Signs whatever it is asked to, says that nothing was claimed, settles at anything."""

    def take(self, session: SessionKey, message: Any) -> None:
        if isinstance(message, messages.LockAsk):
            receipt = self.receipt(message.order)
            self.context.send(session, receipt)
        elif isinstance(message, messages.ClaimAsk | messages.ChannelAsk):
            signed = signing.settlement_bytes(NETWORK, message.cid, 0)
            settled = messages.Settlement(message.cid, 0, self.signer.sign(signed))
            self.context.send(session, messages.ClaimNotice(message.cid, 0, 0))
            self.context.send(session, settled)

    def receipt(self, order: DepositOrder) -> messages.LockReceipt:
        """A good signature under anything."""
        cid = self.context.ledger.vault.cid(order)
        signed = signing.deposit_bytes(NETWORK, cid, order.deposit_ucr, order.sequence)
        signature = self.signer.sign(signed)
        return messages.LockReceipt(cid, order.deposit_ucr, order.sequence, signature)


class Client(Host):
    """A payer or payee with a quorum as its anchor; records what the anchor told it."""

    def start(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.quorum = WitnessQuorum(
            self.context,
            self.net.quorum,
            deposit_max_ucr=limits.DEPOSIT_UCR_MAX,
            connect=lambda witness: None,
            is_up=lambda witness: self.net.links.get((self.key, witness), False),
            listener=self,
        )
        self.quorum.start()

    def funded(self, cid: bytes) -> None:
        self.told.append(("funded", cid))

    def refused(self, cid: bytes, code: str) -> None:
        self.told.append(("refused", cid, code))

    def challenged(self, cid: bytes, total_ucr: int, deadline_ns: int) -> None:
        self.told.append(("challenged", cid, total_ucr))

    def settled(self, cid: bytes, settled_ucr: int) -> None:
        self.told.append(("settled", cid, settled_ucr))

    def take(self, session: SessionKey, message: Any) -> None:
        if not session.outbound:
            assert isinstance(message, messages.DepositProof)
            self.quorum.take_proof(session.peer, message)
            return
        self.quorum.take(session.peer, message)

    def run_timers(self) -> None:
        while (key := self.context.timers.pop_due(self.net.now_ns)) is not None:
            self.quorum.handle_timer(key)

    # --- channels, as the cores of the node keep them -----------------------------------------

    def open(self, payer: bytes, payee: bytes, salt: int, deposit_ucr: int) -> Channel:
        """The record of an opening; whether it is backed is another matter."""
        salts = bytes([salt % 256, salt // 256]) * 8, bytes(16)
        opened = ChannelOpened(payer, payee, *salts, TERMS, deposit_ucr, EPOCH_NS)
        self.context.append(opened)
        cid = signing.channel_id(NETWORK, payer, payee, *salts, TERMS)
        return self.context.ledger.channels[cid]

    def accept(self, proof: messages.DepositProof) -> Channel | None:
        """As a payee: take an opening that this certificate stands behind, or refuse it."""
        order = proof.order
        cid = self.context.ledger.backing.cid(order)
        known = self.context.ledger.channel(cid)
        if known is not None:
            return known
        try:
            self.quorum.take_proof(order.payer, proof)
            self.quorum.verify_deposit(self.context.ledger, cid, order.payer, order.deposit_ucr, 0)
        except RemoteError:
            return None
        salts = order.payer_salt, order.payee_salt
        self.context.append(
            ChannelOpened(order.payer, order.payee, *salts, TERMS, order.deposit_ucr, EPOCH_NS)
        )
        self.quorum.keep_proof(self.context, cid)
        self.flush()
        return self.context.ledger.channels[cid]

    def paid(self, channel: Channel, payer: Signer, total_ucr: int) -> None:
        """As a payee: the payer sent a better voucher."""
        assert channel.role is Role.PAYEE
        signed = signing.voucher_bytes(NETWORK, channel.cid, total_ucr, ())
        self.context.append(
            VoucherAccepted(Voucher(channel.cid, total_ucr, (), payer.sign(signed)))
        )
        self.flush()


def witness_signature(receipt: messages.LockReceipt, witness: bytes) -> WitnessSignature:
    return WitnessSignature(witness, receipt.signature)


def assert_sound(witness: WitnessHost) -> None:
    """Nothing was created or lost, and the log says what is so."""
    live, folded = witness.context.ledger.vault, witness.replayed().vault
    copy = Ledger(NETWORK, witness.key)
    restore(copy, snapshot_parts(witness.context.ledger))
    assert copy.vault == live == folded
    total, granted = live.total_ucr()
    assert total == granted
    for channel in live.channels.values():
        assert 0 <= channel.paid_ucr <= channel.deposit_ucr
        assert channel.settled_ucr in (None, channel.paid_ucr)
