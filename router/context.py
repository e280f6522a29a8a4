"""What the cores of one node share: identity, ledger, timers, and the actions being collected.

Has no clock: `now_ns` is that of the input being handled. `entropy` supplies secret bytes. `log`
is the fold of what was appended; without it, no heads are signed and no snapshots made.
"""

from collections.abc import Callable
from typing import Any

from protocol import wire
from protocol.channel import Role
from protocol.crypto import Signer, Verify, verify
from protocol.errors import CODES, RemoteError
from protocol.framing import frame
from protocol.records import encode_record
from router.actions import Action, Append, Deliver, Note, Penalize, Send, SessionKey
from router.clearings import Clearings
from router.fold import Fold
from router.ledger import Ledger
from router.offers import OfferBook
from router.timers import Timers


class Context:
    """One node's shared state; a core calls these and never builds an action list itself."""

    def __init__(
        self,
        signer: Signer,
        network: str,
        ledger: Ledger,
        entropy: Callable[[int], bytes],
        check: Verify = verify,
        log: Fold | None = None,
    ) -> None:
        self.signer = signer
        self.network = network
        self.ledger = ledger
        self.log = log
        self.entropy = entropy
        self.verify = check
        self.timers = Timers()
        self.clearings = Clearings(self._was_paid_by)
        self.offers = OfferBook()
        self.addresses: tuple[str, ...] = ()
        self.now_ns = 0
        self._actions: list[Action] = []

    @property
    def public_key(self) -> bytes:
        """This node's identity, 32 bytes."""
        return self.signer.public_key

    def _was_paid_by(self, peer: bytes) -> bool:
        """Whether a peer has paid something on a channel that is open; this node is as good."""
        if peer == self.public_key:
            return True
        return any(one.total_ucr for one in self.ledger.with_peer(peer, Role.PAYEE))

    def take_actions(self) -> list[Action]:
        """What was collected since the last call, in order."""
        taken, self._actions = self._actions, []
        return taken

    def act(self, action: Action) -> None:
        """Add an action as it is."""
        self._actions.append(action)

    def append(self, record: Any) -> None:
        """Fold a record into the ledger and log it: nothing after this leaves before it is
        durable."""
        number, payload = encode_record(record)
        self.ledger.apply(record)
        if self.log is not None:
            self.log.add(record, number, payload)
        self._actions.append(Append(number, payload))

    def send(self, session: SessionKey, message: Any) -> None:
        """Send a message on a job stream."""
        self._actions.append(Send(session, frame(wire.encode(message))))

    def deliver(self, ask_id: int, event: Any) -> None:
        """Tell a local asker."""
        self._actions.append(Deliver(ask_id, event))

    def penalize(self, peer: bytes, code: str) -> None:
        """The peer broke the protocol."""
        self._actions.append(Penalize(peer, code))

    def blame(self, peer: bytes, error: RemoteError) -> bool:
        """What a peer sent was refused; whether that was an offence, which keeps it away."""
        event = "peer.offence" if error.penalize else "input.ignored"
        self.note(event, peer_id=peer, code=error.code, detail=error.detail)
        if error.penalize:
            self.penalize(peer, error.code)
        return error.penalize

    def note(self, event: str, **fields: Any) -> None:
        """One log line."""
        self._actions.append(Note(event, tuple(fields.items())))

    def note_rolled_back(self, peer: bytes, **shown: Any) -> None:
        """The peer holds a signature of ours that our log has lost: an old copy was restored."""
        code = "head.rolled_back"
        self.note("log.rolled_back", peer_id=peer, **shown, code=code, detail=CODES[code])
