"""What exactly is signed: one fixed byte layout a thing, never msgpack.

Each starts with its own 16-byte domain tag, bound to the network. Integers are big-endian.
Knows nothing of keys or meaning. Rule: protocol/README.md, "Signatures".
"""

from typing import Protocol

from protocol import crypto, wire
from protocol.fields import ChannelTerms, Cheque, GenerationParameters, LaneClaim
from protocol.messages import Receipt


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def channel_id(
    network: str,
    payer: bytes,
    payee: bytes,
    payer_salt: bytes,
    payee_salt: bytes,
    terms: ChannelTerms,
) -> bytes:
    """The channel's 32-byte name: its parties, both salts and its terms, on one network."""
    return crypto.digest(
        b"peerd/chan/1",
        crypto.domain_tag(network, "network"),
        payer,
        payee,
        payer_salt,
        payee_salt,
        crypto.digest(wire.encode_fields(terms)),
    )


class Opening(Protocol):
    """What names a channel: a record, an order to witnesses."""

    @property
    def payer(self) -> bytes:
        """Who pays."""
        ...

    @property
    def payee(self) -> bytes:
        """Who is paid."""
        ...

    @property
    def payer_salt(self) -> bytes:
        """The payer's part of the name."""
        ...

    @property
    def payee_salt(self) -> bytes:
        """The payee's part of the name."""
        ...

    @property
    def terms(self) -> ChannelTerms:
        """What both agreed to."""
        ...


def opened_id(network: str, opening: Opening) -> bytes:
    """The name of the channel that `opening` is of: `channel_id` of its parts."""
    ends, salts = (opening.payer, opening.payee), (opening.payer_salt, opening.payee_salt)
    return channel_id(network, *ends, *salts, opening.terms)


def lanes_root(network: str, lanes: tuple[LaneClaim, ...]) -> bytes:
    """One hash over the lanes' claims, in rising order of lane."""
    leaves = (_u64(claim.lane) + _u32(claim.chunks) + _u64(claim.due_ucr) for claim in lanes)
    return crypto.digest(crypto.domain_tag(network, "lanes"), *leaves)


def voucher_bytes(network: str, cid: bytes, total_ucr: int, lanes: tuple[LaneClaim, ...]) -> bytes:
    """tag16 ‖ cid32 ‖ total u64 ‖ lanes_root32: 88 bytes."""
    tag = crypto.domain_tag(network, "voucher")
    return tag + cid + _u64(total_ucr) + lanes_root(network, lanes)


def open_bytes(network: str, cid: bytes, deposit_ucr: int, opened_at_ns: int) -> bytes:
    """tag16 ‖ cid32 ‖ deposit u64 ‖ opened_at u64, by the payer."""
    return crypto.domain_tag(network, "open") + cid + _u64(deposit_ucr) + _u64(opened_at_ns)


def close_notice_bytes(network: str, cid: bytes, total_ucr: int, deadline_ns: int) -> bytes:
    """tag16 ‖ cid32 ‖ total u64 ‖ deadline u64, by the end that closes alone."""
    tag = crypto.domain_tag(network, "close notice")
    return tag + cid + _u64(total_ucr) + _u64(deadline_ns)


def top_up_bytes(network: str, cid: bytes, deposit_ucr: int) -> bytes:
    """tag16 ‖ cid32 ‖ deposit u64, by the payer."""
    return crypto.domain_tag(network, "top up") + cid + _u64(deposit_ucr)


def top_up_ack_bytes(network: str, cid: bytes, deposit_ucr: int) -> bytes:
    """tag16 ‖ cid32 ‖ deposit u64, by the payee."""
    return crypto.domain_tag(network, "top up ack") + cid + _u64(deposit_ucr)


def parameters_digest(parameters: GenerationParameters) -> bytes:
    """What awards and receipts say of the sampling parameters, 32 bytes."""
    return crypto.digest(wire.encode_fields(parameters))


def award_bytes(
    network: str,
    request_id: bytes,
    bid_id: bytes,
    cid: bytes,
    lane: int,
    commitment: bytes,
    parameters: GenerationParameters,
) -> bytes:
    """tag16 ‖ request32 ‖ bid32 ‖ cid32 ‖ lane u64 ‖ prompt32 ‖ parameters32, by the payer."""
    return b"".join(
        (
            crypto.domain_tag(network, "award"),
            request_id,
            bid_id,
            cid,
            _u64(lane),
            commitment,
            parameters_digest(parameters),
        )
    )


def accept_bytes(network: str, cid: bytes, deposit_ucr: int, lane: int, bid_id: bytes) -> bytes:
    """tag16 ‖ cid32 ‖ deposit u64 ‖ lane u64 ‖ bid32, by the payee."""
    tag = crypto.domain_tag(network, "accept")
    return tag + cid + _u64(deposit_ucr) + _u64(lane) + bid_id


def chunk_bytes(network: str, cid: bytes, lane: int, sequence: int, transcript: bytes) -> bytes:
    """tag16 ‖ cid32 ‖ lane u64 ‖ sequence u32 ‖ transcript32, by the payee."""
    tag = crypto.domain_tag(network, "chunk")
    return tag + cid + _u64(lane) + _u32(sequence) + transcript


def receipt_id(receipt: Receipt) -> bytes:
    """The receipt's 32-byte name: the hash of its canonical bytes."""
    return crypto.digest(wire.encode(receipt))


def receipt_bytes(network: str, identity: bytes) -> bytes:
    """tag16 ‖ receipt_id32, by the payee."""
    return crypto.domain_tag(network, "receipt") + identity


def receipt_ack_bytes(network: str, identity: bytes) -> bytes:
    """tag16 ‖ receipt_id32, by the payer."""
    return crypto.domain_tag(network, "receipt ack") + identity


def close_bytes(network: str, cid: bytes, total_ucr: int) -> bytes:
    """tag16 ‖ cid32 ‖ total u64, by the payer: settle here, the rest comes back."""
    return crypto.domain_tag(network, "close") + cid + _u64(total_ucr)


def close_ack_bytes(network: str, cid: bytes, total_ucr: int) -> bytes:
    """tag16 ‖ cid32 ‖ total u64, by the payee."""
    return crypto.domain_tag(network, "close ack") + cid + _u64(total_ucr)


def head_bytes(network: str, owner: bytes, sequence: int, head: bytes) -> bytes:
    """tag16 ‖ owner32 ‖ sequence u64 ‖ head32, by the log's owner."""
    return crypto.domain_tag(network, "head") + owner + _u64(sequence) + head


def cheque_bytes(network: str, user: bytes, node: bytes, nonce: int, amount_ucr: int) -> bytes:
    """tag16 ‖ user32 ‖ node32 ‖ nonce u64 ‖ amount u64, by the user: pay so much at most."""
    return crypto.domain_tag(network, "cheque") + user + node + _u64(nonce) + _u64(amount_ucr)


def bound_cheque_bytes(
    network: str, user: bytes, node: bytes, nonce: int, amount_ucr: int, body: bytes
) -> bytes:
    """tag16 ‖ user32 ‖ node32 ‖ nonce u64 ‖ amount u64 ‖ body32, by the user: for that body."""
    tag = crypto.domain_tag(network, "bound cheque")
    return tag + user + node + _u64(nonce) + _u64(amount_ucr) + body


def signed_of_cheque(network: str, cheque: Cheque) -> bytes:
    """What a cheque's signature is over."""
    said = (network, cheque.user, cheque.node, cheque.nonce, cheque.amount_ucr)
    return bound_cheque_bytes(*said, cheque.body) if cheque.body else cheque_bytes(*said)


def cheque_id(network: str, cheque: Cheque) -> bytes:
    """The cheque's 32-byte name: the hash of what is signed."""
    return crypto.digest(signed_of_cheque(network, cheque))


def order_bytes(network: str, cid: bytes, deposit_ucr: int, sequence: int) -> bytes:
    """tag16 ‖ cid32 ‖ deposit u64 ‖ sequence u64, by the payer, to its witnesses."""
    return crypto.domain_tag(network, "order") + cid + _u64(deposit_ucr) + _u64(sequence)


def deposit_bytes(network: str, cid: bytes, deposit_ucr: int, sequence: int) -> bytes:
    """tag16 ‖ cid32 ‖ deposit u64 ‖ sequence u64, by a witness: so much is locked."""
    return crypto.domain_tag(network, "deposit") + cid + _u64(deposit_ucr) + _u64(sequence)


def settlement_bytes(network: str, cid: bytes, settled_ucr: int) -> bytes:
    """tag16 ‖ cid32 ‖ settled u64, by a witness: so much went to the payee, the rest back."""
    return crypto.domain_tag(network, "settlement") + cid + _u64(settled_ucr)
