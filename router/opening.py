"""Opening a channel: the payer's record and signature, the payee's checks; with a job or alone.

Inside an award it costs no round trip. Alone, a person opens one beforehand: the payer asks for
terms, and sends the opening once the anchor holds the deposit. Sans-IO.
Rule: protocol/README.md, "Opening without a job".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocol import limits, signing
from protocol.channel import Channel, ChannelEvent, ChannelState, Role
from protocol.errors import CODES, RemoteError
from protocol.fields import ChannelOpen, ChannelTerms
from protocol.messages import OpenAsk, Opened, Refuse, Terms, TermsAsk
from protocol.records import ChannelClosed, ChannelOpened, OpeningSigned
from router.actions import SessionKey
from router.anchor import Anchor
from router.context import Context
from router.ledger import REFUSED


def open_channel(
    context: Context, payee: bytes, terms: ChannelTerms, payee_salt: bytes, deposit_ucr: int
) -> tuple[Channel, ChannelOpen]:
    """The payer's side: log it, sign it. RemoteError `channel.too_many`, no offence."""
    if len(context.ledger.with_peer(payee, Role.PAYER)) >= limits.CHANNELS_PER_PEER_MAX:
        raise RemoteError("channel.too_many", penalize=False)
    record = ChannelOpened(
        payer=context.public_key,
        payee=payee,
        payer_salt=context.entropy(16),
        payee_salt=payee_salt,
        terms=terms,
        deposit_ucr=deposit_ucr,
        opened_at_ns=context.now_ns,
    )
    context.append(record)
    salts = record.payer_salt, record.payee_salt
    cid = signing.opened_id(context.network, record)
    signed = signing.open_bytes(context.network, cid, deposit_ucr, record.opened_at_ns)
    signature = context.signer.sign(signed)
    context.append(OpeningSigned(cid, signature))
    opening = ChannelOpen(*salts, terms, deposit_ucr, record.opened_at_ns, signature)
    return context.ledger.channels[cid], opening


def check_opening(
    context: Context,
    anchor: Anchor,
    payer: bytes,
    cid: bytes,
    opening: ChannelOpen,
    offered: tuple[ChannelTerms, bytes],
) -> ChannelOpened:
    """The payee's side: the record that an opening on the terms and salt that were `offered`
    would make; nothing changes yet.

    RemoteError: `channel.bad_terms`, `channel.over_limit`, `channel.too_many`,
    `channel.bad_signature`, `channel.wrong_state`, and the anchor's codes.
    """
    terms, ledger = opening.terms, context.ledger
    if (terms, opening.payee_salt) != offered:
        raise RemoteError("channel.bad_terms")
    salts = opening.payer_salt, opening.payee_salt
    if cid != signing.channel_id(context.network, payer, context.public_key, *salts, terms):
        raise RemoteError("channel.bad_terms", "the id does not follow from the terms")
    if cid in ledger.channels:
        raise RemoteError("channel.wrong_state", "already open", penalize=False)
    if opening.deposit_ucr > terms.deposit_max_ucr:
        raise RemoteError("channel.over_limit", penalize=False)
    anchor.verify_deposit(ledger, cid, payer, opening.deposit_ucr, 0)
    too_many = len(ledger.with_peer(payer, Role.PAYEE)) >= limits.CHANNELS_PER_PEER_MAX
    if too_many or ledger.open_channels >= limits.CHANNELS_MAX:
        raise RemoteError("channel.too_many", penalize=False)
    signed = signing.open_bytes(context.network, cid, opening.deposit_ucr, opening.opened_at_ns)
    if not context.verify(payer, signed, opening.signature):
        raise RemoteError("channel.bad_signature", "open")
    return ChannelOpened(
        payer=payer,
        payee=context.public_key,
        payer_salt=opening.payer_salt,
        payee_salt=opening.payee_salt,
        terms=terms,
        deposit_ucr=opening.deposit_ucr,
        opened_at_ns=opening.opened_at_ns,
    )


@dataclass(slots=True)
class _Wanted:
    """A channel that a person wants; `cid` is empty until the terms are known."""

    deposit_ucr: int
    cid: bytes = b""
    opening: ChannelOpen | None = None


class Openings:
    """Channels that are opened without a job, on both ends; one a peer at a time.

    `window_ucr` says what W this node would give now, 0 if it sells nothing.
    """

    def __init__(
        self,
        context: Context,
        anchor: Anchor,
        connect: Callable[[bytes, tuple[str, ...]], None],
        is_up: Callable[[bytes], bool],
        window_ucr: Callable[[], int],
    ) -> None:
        self._context = context
        self._anchor = anchor
        self._connect = connect
        self._is_up = is_up
        self._window_ucr = window_ucr
        self._wanted: dict[bytes, _Wanted] = {}
        self._offered: dict[bytes, tuple[ChannelTerms, bytes]] = {}  # to payers that are connected
        self.ended: dict[bytes, tuple[bytes, str]] = {}  # by payee: the channel, or why not

    # --- the payer -------------------------------------------------------------------------

    def ask(self, payee: bytes, deposit_ucr: int) -> None:
        """A person wants a channel; how it went stands in `ended`."""
        self.ended.pop(payee, None)
        self._wanted[payee] = _Wanted(deposit_ucr)
        if self._is_up(payee):
            self._ask_terms(payee)
        else:
            self._connect(payee, ())

    def _ask_terms(self, payee: bytes) -> None:
        session = SessionKey(payee, outbound=True)
        self._context.send(session, TermsAsk(self._wanted[payee].deposit_ucr))

    def session_opened(self, session: SessionKey) -> None:
        """A stream is up."""
        wanted = self._wanted.get(session.peer)
        if session.outbound and wanted is not None and not wanted.cid:
            self._ask_terms(session.peer)

    def session_closed(self, session: SessionKey) -> None:
        """A stream is gone, or never was: what was begun is for the re-establishing."""
        if session.outbound:
            self._end(session.peer, b"", "provider.unreachable")
        else:
            self._offered.pop(session.peer, None)

    def _end(self, payee: bytes, cid: bytes, code: str) -> None:
        if self._wanted.pop(payee, None) is None:
            return
        self.ended[payee] = cid, code
        while len(self.ended) > limits.SESSIONS_MAX:
            del self.ended[next(iter(self.ended))]

    def _take_terms(self, payee: bytes, terms: Terms) -> None:
        wanted = self._wanted.get(payee)
        if wanted is None or wanted.cid:
            raise RemoteError("session.protocol", "terms that were not asked for")
        if wanted.deposit_ucr > terms.terms.deposit_max_ucr:
            self._end(payee, b"", "channel.over_limit")
            return
        try:
            channel, wanted.opening = open_channel(
                self._context, payee, terms.terms, terms.payee_salt, wanted.deposit_ucr
            )
        except RemoteError as error:
            self._end(payee, b"", error.code)
            return
        wanted.cid = channel.cid
        self.funded(channel.cid)

    def funded(self, cid: bytes) -> None:
        """The anchor may hold the deposit by now: then the payee is told."""
        for payee, wanted in self._wanted.items():
            if wanted.cid != cid or wanted.opening is None:
                continue
            channel = self._context.ledger.channels[cid]
            if self._anchor.top_up(self._context, channel, wanted.deposit_ucr):
                session = SessionKey(payee, outbound=True)
                self._context.send(session, OpenAsk(cid, wanted.opening))
                wanted.opening = None

    def refused(self, cid: bytes, code: str) -> bool:
        """The anchor won't have it. False for a channel that is not waited for here."""
        for payee, wanted in list(self._wanted.items()):
            if wanted.cid == cid:
                return self._refuse(payee, cid, code)
        return False

    def _refuse(self, payee: bytes, subject: bytes, code: str) -> bool:
        """Nothing is due; False when `subject` is not what was asked of this payee."""
        wanted = self._wanted.get(payee)
        if wanted is None or subject != (wanted.cid or bytes(32)):
            return False
        channel = self._context.ledger.channel(wanted.cid)
        if channel is not None and channel.is_open:
            now_ns = self._context.now_ns
            self._context.append(ChannelClosed(channel.cid, 0, REFUSED, now_ns, b"", b""))
            self._anchor.release(self._context, channel)
        self._end(payee, b"", code if code in CODES else "provider.refused")
        return True

    def _take_opened(self, payee: bytes, message: Opened) -> None:
        context, wanted = self._context, self._wanted.get(payee)
        channel = context.ledger.channel(message.cid)
        if wanted is None or channel is None or wanted.cid != message.cid:
            raise RemoteError("channel.unknown", "opened", penalize=False)
        signed = signing.accept_bytes(
            context.network, channel.cid, channel.deposit_ucr, 0, bytes(32)
        )
        if not context.verify(payee, signed, message.signature):
            raise RemoteError("channel.bad_signature", "opened")
        channel.step(ChannelEvent.ACCEPT)
        self._end(payee, channel.cid, "")
        context.note("channel.opened", cid=channel.cid, deposit_ucr=channel.deposit_ucr)

    # --- the payee -------------------------------------------------------------------------

    def _take_ask(self, session: SessionKey, message: TermsAsk) -> None:
        context, window = self._context, self._window_ucr()
        most = self._anchor.deposit_max_ucr(context.ledger, session.peer)
        if not window:
            raise RemoteError("engine.unknown_model", "nothing is sold here", penalize=False)
        if message.deposit_ucr > most:
            raise RemoteError("channel.over_limit", penalize=False)
        lifetime, challenge = limits.CHANNEL_LIFETIME_NS, limits.CHALLENGE_NS
        terms, salt = ChannelTerms(window, most, lifetime, challenge), context.entropy(16)
        self._offered[session.peer] = terms, salt
        context.send(session, Terms(terms, salt))

    def _take_open(self, session: SessionKey, message: OpenAsk) -> None:
        context, cid, opening = self._context, message.cid, message.opening
        offered = self._offered.get(session.peer)
        if offered is None:
            raise RemoteError("channel.bad_terms", "none were offered", penalize=False)
        record = check_opening(context, self._anchor, session.peer, cid, opening, offered)
        del self._offered[session.peer]
        context.append(record)
        context.append(OpeningSigned(cid, opening.signature))
        self._anchor.keep_proof(context, cid)
        channel = context.ledger.channels[cid]
        if channel.state is ChannelState.OPENING:
            channel.step(ChannelEvent.ACCEPT)
        signed = signing.accept_bytes(context.network, cid, channel.deposit_ucr, 0, bytes(32))
        context.send(session, Opened(cid, context.signer.sign(signed)))
        context.note("channel.opened", cid=cid, deposit_ucr=channel.deposit_ucr)

    # --- messages --------------------------------------------------------------------------

    def take(self, session: SessionKey, message: Any) -> bool:
        """A message of this protocol; False for another. RemoteError."""
        if session.outbound:
            match message:
                case Terms():
                    self._take_terms(session.peer, message)
                case Opened():
                    self._take_opened(session.peer, message)
                case Refuse():
                    return self._refuse(session.peer, message.subject, message.code)
                case _:
                    return False
            return True
        match message:
            case TermsAsk():
                self._refusing(session, bytes(32), self._take_ask, message)
            case OpenAsk():
                self._refusing(session, message.cid, self._take_open, message)
            case _:
                return False
        return True

    def _refusing(
        self, session: SessionKey, cid: bytes, take: Callable[..., None], message: Any
    ) -> None:
        try:
            take(session, message)
        except RemoteError as error:
            self._context.send(session, Refuse(cid, error.code))
            raise
