"""Whom a node knows and whom it should be connected to: the peer book, sans-IO.

Holds signed PeerRecords, newest per sender, and decides whom to dial, whom to let go, and
which records to hand on. Randomness comes in as an argument. Must not know libp2p; addresses
are opaque text here. Rule: protocol/README.md, "Peer exchange".
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from protocol import crypto, limits, wire
from protocol.envelope import Signed, open_envelope
from protocol.errors import RemoteError
from protocol.messages import PeerList, PeerRecord

T = TypeVar("T")

# A stranger that can't be reached is tried ever more rarely, up to a sixth of its record's
# life; a bootstrap node, which somebody chose, at least every RECONNECT_NS_MAX.
_STRANGER_BACK_OFF_NS_MAX = limits.PEER_RECORD_LIFETIME_NS // 6
_FAILURES_MAX = 16  # of the exponent: 2^16 s is past every cap


class Rng(Protocol):
    """What the book needs of `random.Random`."""

    def sample(self, population: Sequence[T], k: int, /) -> list[T]:
        """`k` of the population, without repetition."""
        ...

    def randrange(self, stop: int, /) -> int:
        """An integer of 0 to `stop` - 1."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """A peer that should be dialled, and where."""

    peer: bytes
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one peer; `record` is empty for one known by configuration alone."""

    addresses: tuple[str, ...]
    record: bytes
    sent_at_ns: int
    bootstrap: tuple[str, ...] = ()
    failures: int = 0
    due_ns: int = 0


class PeerBook:
    """Records of at most PEER_RECORDS_MAX peers, beside those of the bootstrap list.

    `own` is this node's key. Every method that takes `now_ns` takes Unix ns.
    """

    def __init__(
        self,
        network: str,
        own: bytes,
        *,
        peers_wanted: int = limits.PEERS_WANTED,
        verify: crypto.Verify = crypto.verify,
    ) -> None:
        self._network = network
        self._own = own
        self._own_record = b""
        self._wanted = peers_wanted
        self._verify = verify
        self._entries: dict[bytes, _Entry] = {}
        self._ours: dict[bytes, None] = {}  # connections that this node sought

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, peer: bytes) -> bool:
        return peer in self._entries

    def add_bootstrap(self, peer: bytes, addresses: tuple[str, ...]) -> None:
        """A peer that configuration names; never expires."""
        if peer != self._own:
            self._entries[peer] = _Entry((), b"", 0, bootstrap=addresses)

    def set_own_record(self, record: Signed) -> None:
        """What `list_for` puts first: our own record, signed."""
        self._own_record = record.data if record.message.addresses else b""

    # --- records in -----------------------------------------------------------------------

    def take_list(self, data: bytes, now_ns: int, rng: Rng) -> int:
        """Take in a PeerList that a peer sent; returns how many records were news.

        RemoteError when the list is malformed or holds a forged record. Records that are
        merely stale, early or of another network are passed over: their sender may not know.
        """
        message = wire.decode(data, limits.PEER_LIST_BYTES_MAX)
        if not isinstance(message, PeerList):
            raise RemoteError("envelope.wrong_content", type(message).__name__)
        return sum(self._take_record(record, now_ns, rng) for record in message.records)

    def _take_record(self, data: bytes, now_ns: int, rng: Rng) -> bool:
        try:
            signed = open_envelope(
                data,
                self._network,
                now_ns,
                allowed=(PeerRecord,),
                lifetime_ns=limits.PEER_RECORD_LIFETIME_NS,
                verify=self._verify,
            )
        except RemoteError as error:
            if error.penalize:
                raise
            return False
        if signed.sender == self._own or not signed.message.addresses:
            return False
        known = self._entries.get(signed.sender)
        if known is None:
            if self._is_full():
                self._evict(now_ns, rng)
            known = _Entry((), b"", 0)
        elif known.sent_at_ns >= signed.sent_at_ns:
            return False
        moved = known.addresses != signed.message.addresses
        self._entries[signed.sender] = replace(
            known,
            addresses=signed.message.addresses,
            record=signed.data,
            sent_at_ns=signed.sent_at_ns,
            failures=0 if moved else known.failures,
            due_ns=0 if moved else known.due_ns,
        )
        return True

    def _strangers(self) -> list[bytes]:
        return [peer for peer, entry in self._entries.items() if not entry.bootstrap]

    def _is_full(self) -> bool:
        return len(self._strangers()) >= limits.PEER_RECORDS_MAX

    def _evict(self, now_ns: int, rng: Rng) -> None:
        """Make room: the expired, else one of those that fail most, at random, so that a
        flood of fresh records can't choose whom it displaces."""
        self.expire(now_ns)
        strangers = self._strangers()
        if len(strangers) < limits.PEER_RECORDS_MAX:
            return
        worst = max(self._entries[peer].failures for peer in strangers)
        candidates = [peer for peer in strangers if self._entries[peer].failures == worst]
        del self._entries[candidates[rng.randrange(len(candidates))]]

    def expire(self, now_ns: int) -> None:
        """Forget records past PEER_RECORD_LIFETIME_NS."""
        for peer, entry in list(self._entries.items()):
            if entry.record and now_ns - entry.sent_at_ns > limits.PEER_RECORD_LIFETIME_NS:
                if entry.bootstrap:
                    self._entries[peer] = replace(entry, addresses=(), record=b"", sent_at_ns=0)
                else:
                    del self._entries[peer]

    # --- records out ----------------------------------------------------------------------

    def list_for(self, peer: bytes, now_ns: int, rng: Rng) -> bytes:
        """The encoded PeerList to send to `peer`: our own record, then others at random."""
        self.expire(now_ns)
        known = [
            entry.record
            for other, entry in self._entries.items()
            if entry.record and other != peer and not entry.failures
        ]
        room = limits.PEER_RECORDS_PER_REPLY_MAX - 1
        chosen = rng.sample(known, min(room, len(known)))
        own = [self._own_record] if self._own_record else []
        return wire.encode(PeerList(records=(*own, *chosen)))

    # --- whom to dial ---------------------------------------------------------------------

    def to_dial(
        self, connected: Collection[bytes], dialling: Collection[bytes], now_ns: int, rng: Rng
    ) -> list[Target]:
        """Peers to dial now, so that PEERS_WANTED become connected, half of them by our own
        choice; none when they are.

        Inbound connections count, so that degrees stay near the wanted one on both ends; but
        who comes to us may be all of one mind, and must not end our search for others.
        Bootstrap nodes come first while nobody whom we chose is connected, and last otherwise:
        they meet everybody, and have the least room.
        """
        self._ours = {peer: None for peer in self._ours if peer in connected}
        few = self._wanted // 2 - len(self._ours)
        missing = max(self._wanted - len(connected), few) - len(dialling)
        if missing <= 0:
            return []
        self.expire(now_ns)
        due = [
            peer
            for peer, entry in self._entries.items()
            if entry.due_ns <= now_ns and peer not in connected and peer not in dialling
        ]
        chosen = [peer for peer in due if self._entries[peer].bootstrap]
        strangers = [peer for peer in due if not self._entries[peer].bootstrap]
        shuffled = rng.sample(strangers, len(strangers))
        order = shuffled + chosen if self._ours else chosen + shuffled
        return [Target(peer, self._addresses(peer)) for peer in order[:missing]]

    def _addresses(self, peer: bytes) -> tuple[str, ...]:
        entry = self._entries[peer]
        both = dict.fromkeys((*entry.bootstrap, *entry.addresses))
        return tuple(both)[: limits.ADDRESSES_MAX]

    def dialled(self, peer: bytes, reached: bool, now_ns: int, rng: Rng) -> None:
        """How a dial ended: a success clears the back-off, a failure doubles it, with jitter."""
        if reached:
            self._ours[peer] = None
        entry = self._entries.get(peer)
        if entry is None:
            return
        if reached:
            self._entries[peer] = replace(entry, failures=0, due_ns=0)
            return
        failures = min(entry.failures + 1, _FAILURES_MAX)
        cap_ns = limits.RECONNECT_NS_MAX if entry.bootstrap else _STRANGER_BACK_OFF_NS_MAX
        delay_ns = min(limits.RECONNECT_NS_MIN << (failures - 1), cap_ns)
        # Between half and all of it: many who lost the same peer don't come back as one.
        delay_ns = delay_ns // 2 + rng.randrange(delay_ns // 2 + 1)
        self._entries[peer] = replace(entry, failures=failures, due_ns=now_ns + delay_ns)

    def satisfied(self, connected: Collection[bytes]) -> bool:
        """Whether as many are connected as are wanted."""
        return len(connected) >= self._wanted

    def surplus(self, connected: Sequence[bytes], connections_max: int) -> list[bytes]:
        """Whom to let go, longest-connected first, so that a quarter of the room stays free.

        A bootstrap node that is full could admit nobody to the network; those who have been
        here longest have met others by now. Whom we sought stay: who floods us with connections
        must not push them out.
        """
        room = connections_max - connections_max // 4
        theirs = [peer for peer in connected if peer not in self._ours]
        return theirs[: max(0, len(connected) - room)]
