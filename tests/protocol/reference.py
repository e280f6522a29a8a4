"""The wire written a second time, from protocol/README.md alone: bytes by hand, no msgpack.

Tests compare the two; a mistake would have to be made twice, in different words.
"""

import struct
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from typing import Any


def pack_integer(value: int) -> bytes:
    """An integer in the fewest bytes."""
    if -32 <= value < 0x80:
        return bytes([value & 0xFF])
    for head, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        if 0 <= value < 1 << (8 * size):
            return bytes([head]) + value.to_bytes(size, "big")
    for head, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        if -(1 << (8 * size - 1)) <= value < 0:
            return bytes([head]) + value.to_bytes(size, "big", signed=True)
    raise OverflowError(value)


def pack_header(length: int, small: tuple[int, int], wide: tuple[tuple[int, int], ...]) -> bytes:
    """A length in the fewest bytes: `small` is (limit, first byte), `wide` (byte, size)s."""
    limit, first = small
    if length < limit:
        return bytes([first | length])
    for head, size in wide:
        if length < 1 << (8 * size):
            return bytes([head]) + length.to_bytes(size, "big")
    raise OverflowError(length)


def pack(value: Any) -> bytes:
    """The canonical bytes of a value: integer, str, bytes, sequence, None or dataclass."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int) and not isinstance(value, bool):
        return pack_integer(int(value))
    if isinstance(value, str):
        encoded = value.encode()
        wide = ((0xD9, 1), (0xDA, 2), (0xDB, 4))
        return pack_header(len(encoded), (32, 0xA0), wide) + encoded
    if isinstance(value, bytes):
        return pack_header(len(value), (0, 0), ((0xC4, 1), (0xC5, 2), (0xC6, 4))) + value
    if is_dataclass(value):
        return pack(body(value))
    assert isinstance(value, tuple), value
    head = pack_header(len(value), (16, 0x90), ((0xDC, 2), (0xDD, 4)))
    return head + b"".join(map(pack, value))


def body(value: Any) -> tuple[Any, ...]:
    """A dataclass as an array; optional fields go from the end while they are empty."""
    items = [(getattr(value, field.name), field.metadata) for field in fields(value)]
    while items and items[-1] in tuple((empty, {"optional": True}) for empty in ((), 0, b"", "")):
        items.pop()
    return tuple(item for item, _ in items)


def message(number: int, value: Any) -> bytes:
    """A dataclass as a message: its type number, then its fields."""
    return pack((number, *body(value)))


def digest(data: bytes, key: bytes = b"") -> bytes:
    """BLAKE2b-256."""
    return blake2b(data, digest_size=32, key=key).digest()


def tag(network: str, thing: str) -> bytes:
    """A domain tag."""
    name = network.encode() + b"\0" + thing.encode()
    return blake2b(name, digest_size=16, person=b"peerd domain tag").digest()


def channel_id(
    network: str, payer: bytes, payee: bytes, payer_salt: bytes, payee_salt: bytes, terms: Any
) -> bytes:
    """README, "Channel id"."""
    return digest(
        b"peerd/chan/1"
        + tag(network, "network")
        + payer
        + payee
        + payer_salt
        + payee_salt
        + digest(pack(terms))
    )


def lanes_root(network: str, lanes: tuple[Any, ...]) -> bytes:
    """README, "Lanes root"."""
    leaves = [struct.pack(">QIQ", claim.lane, claim.chunks, claim.due_ucr) for claim in lanes]
    return digest(tag(network, "lanes") + b"".join(leaves))


def transcript_start(network: str, request_id: bytes, bid_id: bytes, commitment: bytes) -> bytes:
    """README, "Transcript"."""
    return digest(tag(network, "transcript") + request_id + bid_id + commitment)


def transcript_next(
    previous: bytes,
    sequence: int,
    text: str,
    input_tokens: int,
    output_tokens: int,
    due_ucr: int,
    logprobs: tuple[Any, ...] = (),
) -> bytes:
    """README, "Transcript"."""
    encoded = text.encode()
    scores = digest(b"".join(map(pack, logprobs))) if logprobs else b""
    counts = struct.pack(">IIIQI", sequence, input_tokens, output_tokens, due_ucr, len(encoded))
    return digest(previous + counts + encoded + scores)


def voucher_bytes(network: str, cid: bytes, total_ucr: int, lanes: tuple[Any, ...]) -> bytes:
    """README, "Signatures"; so are all below."""
    total = struct.pack(">Q", total_ucr)
    return tag(network, "voucher") + cid + total + lanes_root(network, lanes)


def open_bytes(network: str, cid: bytes, deposit_ucr: int, opened_at_ns: int) -> bytes:
    """The payer opens."""
    return tag(network, "open") + cid + struct.pack(">QQ", deposit_ucr, opened_at_ns)


def award_bytes(
    network: str,
    request_id: bytes,
    bid_id: bytes,
    cid: bytes,
    lane: int,
    commitment: bytes,
    parameters: Any,
) -> bytes:
    """The payer awards."""
    ids = request_id + bid_id + cid + struct.pack(">Q", lane)
    return tag(network, "award") + ids + commitment + digest(pack(parameters))


def accept_bytes(network: str, cid: bytes, deposit_ucr: int, lane: int, bid_id: bytes) -> bytes:
    """The payee starts."""
    return tag(network, "accept") + cid + struct.pack(">QQ", deposit_ucr, lane) + bid_id


def chunk_bytes(network: str, cid: bytes, lane: int, sequence: int, transcript: bytes) -> bytes:
    """The payee delivers."""
    return tag(network, "chunk") + cid + struct.pack(">QI", lane, sequence) + transcript


def receipt_bytes(network: str, identity: bytes) -> bytes:
    """The payee's receipt."""
    return tag(network, "receipt") + identity


def receipt_ack_bytes(network: str, identity: bytes) -> bytes:
    """The payer's counter-signature."""
    return tag(network, "receipt ack") + identity


def close_bytes(network: str, cid: bytes, total_ucr: int) -> bytes:
    """The payer closes."""
    return tag(network, "close") + cid + struct.pack(">Q", total_ucr)


def close_ack_bytes(network: str, cid: bytes, total_ucr: int) -> bytes:
    """The payee agrees."""
    return tag(network, "close ack") + cid + struct.pack(">Q", total_ucr)


def close_notice_bytes(network: str, cid: bytes, total_ucr: int, deadline_ns: int) -> bytes:
    """One end closes alone."""
    return tag(network, "close notice") + cid + struct.pack(">QQ", total_ucr, deadline_ns)


def top_up_bytes(network: str, cid: bytes, deposit_ucr: int) -> bytes:
    """The payer puts more in."""
    return tag(network, "top up") + cid + struct.pack(">Q", deposit_ucr)


def top_up_ack_bytes(network: str, cid: bytes, deposit_ucr: int) -> bytes:
    """The payee counts on it."""
    return tag(network, "top up ack") + cid + struct.pack(">Q", deposit_ucr)


def head_bytes(network: str, owner: bytes, sequence: int, head: bytes) -> bytes:
    """The log's owner, for all records up to `sequence`."""
    return tag(network, "head") + owner + struct.pack(">Q", sequence) + head


def order_bytes(network: str, cid: bytes, deposit_ucr: int, sequence: int) -> bytes:
    """The payer orders its witnesses."""
    return tag(network, "order") + cid + struct.pack(">QQ", deposit_ucr, sequence)


def deposit_bytes(network: str, cid: bytes, deposit_ucr: int, sequence: int) -> bytes:
    """A witness holds."""
    return tag(network, "deposit") + cid + struct.pack(">QQ", deposit_ucr, sequence)


def settlement_bytes(network: str, cid: bytes, settled_ucr: int) -> bytes:
    """A witness paid out."""
    return tag(network, "settlement") + cid + struct.pack(">Q", settled_ucr)


def cheque_bytes(network: str, user: bytes, node: bytes, nonce: int, amount_ucr: int) -> bytes:
    """A user promises to pay."""
    return tag(network, "cheque") + user + node + struct.pack(">QQ", nonce, amount_ucr)


def receipt_id(receipt: Any) -> bytes:
    """README, "Receipts": 45 is the receipt's type number."""
    return digest(message(45, receipt))


def bound_cheque_bytes(
    network: str, user: bytes, node: bytes, nonce: int, amount_ucr: int, body: bytes
) -> bytes:
    """A user promises to pay for a request with this body."""
    said = user + node + struct.pack(">QQ", nonce, amount_ucr)
    return tag(network, "bound cheque") + said + body


def cheque_id(network: str, cheque: Any) -> bytes:
    """README, "Cheques"."""
    said = (network, cheque.user, cheque.node, cheque.nonce, cheque.amount_ucr)
    return digest(bound_cheque_bytes(*said, cheque.body) if cheque.body else cheque_bytes(*said))


def prompt_commitment(prompt: Any, key: bytes) -> bytes:
    """README, "Prompt commitment"."""
    return digest(pack(prompt), key)


def envelope_bytes(network: str, sender: bytes, sent_at_ns: int, body: bytes) -> bytes:
    """README, "Envelope"."""
    return tag(network, "envelope") + sender + struct.pack(">Q", sent_at_ns) + digest(body)
