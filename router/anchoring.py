"""The node's anchor and its part as a witness, wired to the other cores. Sans-IO.

Rule: router/README.md, "Anchors".
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from protocol import messages
from protocol.channel import Role
from protocol.errors import RemoteError
from protocol.records import DebtPaid
from router.actions import SessionKey
from router.anchor import Anchor, MutualCredit
from router.context import Context
from router.opening import Openings
from router.quorum import WitnessQuorum
from router.timers import TimerKey
from router.witness import ASKED, Quorum, Witness

ANSWERS: Final = (
    messages.LockReceipt,
    messages.ClaimNotice,
    messages.Settlement,
    messages.Account,
    messages.WitnessRefuse,
)
Connect = Callable[[bytes, tuple[str, ...]], None]


@dataclass(frozen=True, slots=True)
class AnchorSettings:
    """What stands behind deposits here. Without a `quorum`, mutual credit: `deposit_max_ucr`
    is each payer's limit, but of those in `limits_ucr`.

    `addresses` are those of the witnesses; with `serves`, this node is one of them, and
    `grants` are the accounts that its operator gives, in ucr.
    """

    deposit_max_ucr: int = 0
    limits_ucr: dict[bytes, int] = field(default_factory=dict)
    quorum: Quorum | None = None
    addresses: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    serves: bool = False
    grants: dict[bytes, int] = field(default_factory=dict)


class Anchoring:
    """Takes what witnesses and their clients say, and tells the other cores what follows.

    `funded` is told of a channel that has the deposit which was ordered, `refused` of one that
    does not get it, `challenged` and `settled` of one that is closed at the witnesses.
    """

    TIMERS: Final = ("witness", "quorum", "watch")

    def __init__(
        self,
        context: Context,
        settings: AnchorSettings,
        *,
        connect: Connect,
        is_up: Callable[[bytes], bool],
        funded: Callable[[bytes], None],
        refused: Callable[[bytes, str], None],
        window_ucr: Callable[[], int],
        challenged: Callable[[bytes], None],
        settled: Callable[[bytes, int], None],
    ) -> None:
        self._context = context
        self._funded = funded
        self._refused = refused
        self._challenged = challenged
        self._settled = settled
        self._grants = settings.grants
        self.witness: Witness | None = None
        self.anchor: Anchor = MutualCredit(settings.deposit_max_ucr, settings.limits_ucr)
        if settings.quorum is not None:
            self.anchor = WitnessQuorum(
                context,
                settings.quorum,
                deposit_max_ucr=settings.deposit_max_ucr,
                connect=lambda witness: connect(witness, settings.addresses.get(witness, ())),
                is_up=is_up,
                listener=self,
            )
        if settings.quorum is not None and settings.serves:
            self.witness = Witness(context, settings.quorum)
        self.openings = Openings(context, self.anchor, connect, is_up, window_ucr)

    def start(self) -> None:
        """After the log was replayed, once the time is known."""
        if self.witness is not None:
            self.witness.start(self._grants)
        self.anchor.start()

    # --- what comes in ---------------------------------------------------------------------

    def take(self, session: SessionKey, message: Any) -> bool:
        """A message of this protocol; False for another. RemoteError."""
        if session.outbound and isinstance(message, ANSWERS):
            self.anchor.take(session.peer, message)
        elif not session.outbound and isinstance(message, messages.DepositProof):
            self.anchor.take_proof(session.peer, message)
        elif not session.outbound and isinstance(message, ASKED):
            self._asked(session, message)
        else:
            return self.openings.take(session, message)
        return True

    def _asked(self, session: SessionKey, message: Any) -> None:
        if self.witness is None:
            refusal = messages.WitnessRefuse(bytes(32), "witness.not_serving", 0)
            self._context.send(session, refusal)
            raise RemoteError("witness.not_serving", penalize=False)
        self.witness.take(session, message)

    def session_opened(self, session: SessionKey) -> None:
        """A stream is up."""
        if session.outbound:
            self.anchor.connected(session.peer)
        self.openings.session_opened(session)

    def session_closed(self, session: SessionKey) -> None:
        """A stream is gone."""
        self.openings.session_closed(session)
        if not session.outbound and self.witness is not None:
            self.witness.disconnected(session.peer)

    def handle_timer(self, key: TimerKey) -> None:
        """One of TIMERS is due."""
        if key.kind != "witness":
            self.anchor.handle_timer(key)
        elif self.witness is not None:
            self.witness.handle_timer(key)

    def claim(self, cids: tuple[bytes, ...]) -> None:
        """A person wants what the vouchers of these channels, or of all, are worth."""
        for channel in list(self._context.ledger.channels.values()):
            named = not cids or channel.cid in cids
            if named and channel.role is Role.PAYEE and channel.is_open and channel.voucher:
                self.anchor.claim(self._context, channel)

    def paid(self, payer: bytes, amount_ucr: int) -> None:
        """The operator says that a payer paid debts outside of this system."""
        self._context.append(DebtPaid(payer, amount_ucr, self._context.now_ns))

    # --- the anchor's listener -------------------------------------------------------------

    def funded(self, cid: bytes) -> None:
        """The deposit stands: awards and top-ups waited for it."""
        self.openings.funded(cid)
        self._funded(cid)

    def refused(self, cid: bytes, code: str) -> None:
        """The witnesses don't hold what was ordered."""
        if not self.openings.refused(cid, code):
            self._refused(cid, code)

    def challenged(self, cid: bytes, total_ucr: int, deadline_ns: int) -> None:
        """The other end closes alone; the anchor has answered with our best voucher."""
        note = self._context.note
        note("deposit.challenged", cid=cid, total_ucr=total_ucr, deadline_ns=deadline_ns)
        self._challenged(cid)

    def settled(self, cid: bytes, settled_ucr: int) -> None:
        """The witnesses paid out."""
        self._context.note("deposit.settled", cid=cid, settled_ucr=settled_ucr)
        self._settled(cid, settled_ucr)
