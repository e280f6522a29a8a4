"""The signed envelope: who says it, on which network, when; what gossip and bids travel in.

`[version, network_tag16, sender32, sent_at_ns, body, signature64]`, where body is an encoded
message. Signed is a fixed layout, never msgpack: tag16 ‖ sender32 ‖ sent_at u64 ‖ digest32 of
body. Freshness is checked here; replays by who keeps state. Rule: protocol/README.md.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta

from protocol import crypto, limits, wire
from protocol.errors import RemoteError
from protocol.fields import U63, Bytes16, Bytes32, Bytes64

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Envelope:
    """The envelope as it travels; `body` holds one encoded message."""

    version: Annotated[int, Meta(ge=0, le=255)]
    network_tag: Bytes16
    sender: Bytes32
    sent_at_ns: U63
    body: Annotated[bytes, Meta(max_length=limits.GOSSIP_BYTES_MAX)]
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified envelope: its message, and `digest`, the BLAKE2b-256 that names it.

    The digest covers what is signed, so it is the same however often the sender signs it.
    """

    sender: bytes
    sent_at_ns: int
    message: Any
    digest: bytes
    data: bytes


def _signed_bytes(network: str, sender: bytes, sent_at_ns: int, body: bytes) -> bytes:
    return b"".join(
        (
            crypto.domain_tag(network, "envelope"),
            sender,
            sent_at_ns.to_bytes(8, "big"),
            crypto.digest(body),
        )
    )


def sign_envelope(signer: crypto.Signer, network: str, message: Any, now_ns: int) -> Signed:
    """Put `message` in an envelope dated `now_ns` (Unix ns); `.data` is what travels."""
    body = wire.encode(message)
    signed = _signed_bytes(network, signer.public_key, now_ns, body)
    data = wire.encode_fields(
        Envelope(
            version=VERSION,
            network_tag=crypto.domain_tag(network, "network"),
            sender=signer.public_key,
            sent_at_ns=now_ns,
            body=body,
            signature=signer.sign(signed),
        )
    )
    return Signed(signer.public_key, now_ns, message, crypto.digest(signed), data)


def check_fresh(sent_at_ns: int, now_ns: int, lifetime_ns: int = limits.FRESHNESS_NS) -> None:
    """RemoteError `envelope.stale`, `.from_future`; neither is an offence."""
    age_ns = now_ns - sent_at_ns
    if age_ns > lifetime_ns:
        raise RemoteError("envelope.stale", f"{age_ns // 10**6} ms", penalize=False)
    if age_ns < -limits.CLOCK_SKEW_NS:
        raise RemoteError("envelope.from_future", f"{-age_ns // 10**6} ms", penalize=False)


def open_envelope(
    data: bytes,
    network: str,
    now_ns: int | None,
    *,
    allowed: tuple[type, ...],
    lifetime_ns: int = limits.FRESHNESS_NS,
    verify: crypto.Verify = crypto.verify,
) -> Signed:
    """Check and open an envelope; `now_ns` None skips freshness (evidence read from a log).

    RemoteError: the `wire.` codes, `envelope.wrong_version`, `.wrong_network`, `.stale`,
    `.from_future`, `.bad_signature`, `.wrong_content`. Stale and early are not penalised:
    a clock may be off, or gossip slow.
    """
    envelope: Envelope = wire.decode_fields(Envelope, data, limits.GOSSIP_BYTES_MAX)
    if envelope.version != VERSION:
        raise RemoteError("envelope.wrong_version", str(envelope.version), penalize=False)
    if envelope.network_tag != crypto.domain_tag(network, "network"):
        raise RemoteError("envelope.wrong_network", penalize=False)
    if now_ns is not None:
        check_fresh(envelope.sent_at_ns, now_ns, lifetime_ns)
    signed = _signed_bytes(network, envelope.sender, envelope.sent_at_ns, envelope.body)
    if not verify(envelope.sender, signed, envelope.signature):
        raise RemoteError("envelope.bad_signature")
    message = wire.decode(envelope.body, limits.GOSSIP_BYTES_MAX)
    if not isinstance(message, allowed):
        raise RemoteError("envelope.wrong_content", type(message).__name__)
    return Signed(envelope.sender, envelope.sent_at_ns, message, crypto.digest(signed), data)
