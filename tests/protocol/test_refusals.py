"""What is not the encoding of a message is refused, cheaply and with its code, both ways.

Source: protocol/README.md, "Canonical form".
"""

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from protocol import limits, wire
from protocol.errors import LocalError, RemoteError
from protocol.fields import InferenceType, Prompt
from protocol.messages import Cancel, Chunk, Refuse, VoucherAck
from tests.protocol import reference
from tests.protocol.refusals import refusal
from tests.vectors.samples import AWARD, CID, VOUCHER

CANCEL = wire.encode(Cancel(CID, 4))
F32_FOUR = b"\xca" + struct.pack(">f", 4.0)
F64_FOUR = b"\xcb" + struct.pack(">d", 4.0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "wire.truncated", id="nothing"),
        pytest.param(b"\xc1", "wire.malformed", id="the byte that msgpack never uses"),
        pytest.param(b"\xc0", "wire.malformed", id="null"),
        pytest.param(b"\x16", "wire.malformed", id="a number alone"),
        pytest.param(b"\x80", "wire.malformed", id="an empty map"),
        pytest.param(b"\x90", "wire.malformed", id="an empty array"),
        pytest.param(b"\x91\xc3", "wire.malformed", id="a boolean for the number"),
        pytest.param(b"\x91\xa1\x16", "wire.malformed", id="text for the number"),
        pytest.param(b"\x91\xff", "wire.malformed", id="a negative number"),
        pytest.param(b"\x91\x09", "wire.unknown_type", id="a number that is not taken"),
        pytest.param(b"\x91\xcf" + b"\xff" * 8, "wire.malformed", id="a huge number"),
        pytest.param(b"\x91\x16", "wire.bad_field", id="no fields"),
        pytest.param(CANCEL[:-1] + b"\xcc\x04", "wire.not_canonical", id="a wide integer"),
        pytest.param(CANCEL[:-1] + b"\xd0\x04", "wire.not_canonical", id="a signed integer"),
        pytest.param(CANCEL[:-1] + b"\xff", "wire.bad_field", id="a negative integer"),
        pytest.param(CANCEL[:-1] + b"\xc3", "wire.bad_field", id="a boolean for an integer"),
        pytest.param(CANCEL[:-1] + F32_FOUR, "wire.bad_field", id="a float for an integer"),
        pytest.param(CANCEL[:-1] + F64_FOUR, "wire.bad_field", id="a double for an integer"),
        pytest.param(CANCEL[:-1] + b"\xc0", "wire.bad_field", id="null for an integer"),
        pytest.param(CANCEL[:-1] + b"\x80", "wire.bad_field", id="an empty map for an integer"),
        pytest.param(CANCEL[:-1] + b"\x81\x04\x04", "wire.malformed", id="a map"),
        pytest.param(CANCEL[:-1] + b"\x81\xa1a\x04", "wire.malformed", id="a map by name"),
        pytest.param(
            CANCEL[:-1] + b"\xdc\x00\x41" + b"\xc0" * 65, "wire.malformed", id="65 items"
        ),
        pytest.param(
            CANCEL[:-1] + b"\xdc\x00\x40" + b"\xc0" * 64, "wire.bad_field", id="64 items"
        ),
        pytest.param(CANCEL[:-1] + b"\xd4\x01\x04", "wire.malformed", id="an extension"),
        pytest.param(CANCEL[:-1] + b"\xd6\xff" + bytes(4), "wire.malformed", id="a timestamp"),
        pytest.param(CANCEL[:-1] + b"\xc7\x00\x01", "wire.bad_field", id="an empty extension"),
        pytest.param(CANCEL[:-1] + b"\xc7\x00\xff", "wire.malformed", id="an empty timestamp"),
        pytest.param(CANCEL + b"\x04", "wire.malformed", id="trailing bytes"),
        pytest.param(CANCEL + CANCEL, "wire.malformed", id="two messages"),
        pytest.param(b"\x94" + CANCEL[1:] + b"\x04", "wire.bad_field", id="a field too many"),
        pytest.param(b"\x92" + CANCEL[1:-1], "wire.bad_field", id="a field too few"),
        pytest.param(b"\x93\x16\xd9\x20" + CID + b"\x04", "wire.bad_field", id="text for bytes"),
        pytest.param(
            reference.pack((22, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", 4)),
            "wire.bad_field",
            id="base64 for bytes",
        ),
        pytest.param(reference.pack((41, CID, b"a.b")), "wire.bad_field", id="bytes for text"),
        pytest.param(
            reference.pack((41, CID, "??")).replace(b"??", b"\xc0\x80"),
            "wire.malformed",
            id="overlong UTF-8",
        ),
        pytest.param(
            reference.pack((41, CID, "???")).replace(b"???", b"\xed\xa0\x80"),
            "wire.malformed",
            id="a surrogate in UTF-8",
        ),
    ],
)
def test_what_encode_would_not_produce_is_refused(data: bytes, code: str) -> None:
    """One case a rule of README "Canonical form", with the code that it gives."""
    assert refusal(data) == code


BOMBS = {
    "arrays in arrays": b"\x91" * 100_000 + b"\x01",
    "wide arrays in arrays": b"\xdc\x00\x40" * 100_000,
    "arrays inside a message": CANCEL[:-1] + b"\x91" * 100_000,
    "maps in maps": b"\x81\x01" * 100_000,
    "an array of 2^32 items": b"\xdd\xff\xff\xff\xff" + bytes(100),
    "an array of 2^16 items": b"\xdc\xff\xff" + bytes(100),
    "an array of 65 items": b"\xdc\x00\x41" + bytes(100),
    "a map of 2^32 items": b"\xdf\xff\xff\xff\xff" + bytes(100),
    "a map of 2^16 items": b"\xde\xff\xff" + bytes(100),
    "bytes of 2^32": b"\xc6\xff\xff\xff\xff" + bytes(100),
    "text of 2^32": b"\xdb\xff\xff\xff\xff" + bytes(100),
    "an extension of 2^32": b"\xc9\xff\xff\xff\xff\x01" + bytes(100),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_declared_costs_nothing(name: str) -> None:
    """Depth and lengths that a header merely claims are refused without memory for them.

    A linear walk of a bomb allocates less than a few times its own size.
    """
    tracemalloc.start()
    try:
        assert refusal(BOMBS[name]) in {"wire.malformed", "wire.truncated"}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 1024 * 1024


def test_an_oversized_message_is_refused_unread() -> None:
    """Over the limit for its kind it is `wire.oversized`, whatever it holds; at it, it is read."""
    assert refusal(b"\xc1" * (limits.FRAME_BYTES_MAX + 1)) == "wire.oversized"
    assert wire.decode(CANCEL, len(CANCEL)) == Cancel(CID, 4)
    with pytest.raises(RemoteError, match=r"wire\.oversized"):
        wire.decode(CANCEL, len(CANCEL) - 1)


def _chunk(text: str) -> Chunk:
    return Chunk(CID, 1, 1, text, 0, 0, 0, bytes(32), bytes(64))


@pytest.mark.parametrize("length", [65_535, 65_536])
def test_long_text_has_the_right_header(length: int) -> None:
    """The two widest lengths of a string; too long for the golden file."""
    encoded = wire.encode(_chunk("x" * length))
    assert encoded == reference.message(42, _chunk("x" * length))
    assert wire.decode(encoded).text == "x" * length


def test_text_is_bounded_in_characters_not_bytes() -> None:
    """A bound on text counts code points: 64 K of four bytes each pass. README, "Types"."""
    text = "\U0001f3b2" * limits.CHUNK_TEXT_CHARS_MAX
    assert wire.decode(wire.encode(_chunk(text))).text == text


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Cancel("QUFB" * 11, 1), id="text for bytes"),  # type: ignore[arg-type]
        pytest.param(Cancel("a" * 32, 1), id="ascii for bytes"),  # type: ignore[arg-type]
        pytest.param(
            Cancel("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", 1),  # type: ignore[arg-type]
            id="base64 for bytes",
        ),
        pytest.param(Cancel(CID, 1.0), id="a float"),  # type: ignore[arg-type]
        pytest.param(Cancel(CID, True), id="a boolean"),
        pytest.param(Cancel(CID, None), id="null"),  # type: ignore[arg-type]
        pytest.param(Refuse(CID, b"a.b"), id="bytes for text"),  # type: ignore[arg-type]
        pytest.param(Refuse(CID, "\ud800"), id="a lone surrogate"),
        pytest.param(VoucherAck(CID, 2**64), id="over 64 bits"),
        pytest.param(Prompt(3, ()), id="an unknown enum"),  # type: ignore[arg-type]
    ],
)
def test_encode_refuses_what_decode_would(value: Any) -> None:
    """Whatever leaves can be read: a wrong type inside a local message is our own error."""
    encode: Callable[[Any], bytes] = wire.encode if type(value) is not Prompt else _encode_part
    with pytest.raises(LocalError, match=r"wire\.unencodable"):
        encode(value)


def _encode_part(value: Any) -> bytes:
    return wire.encode_fields(value)


def test_a_message_over_a_frame_is_not_encoded() -> None:
    """Bounds of single fields allow more than a frame holds; the whole is checked too."""
    texts = tuple(
        type(AWARD.prompt.messages[0])("user", "x" * limits.MESSAGE_TEXT_CHARS_MAX)
        for _ in range(3)
    )
    prompt = Prompt(InferenceType.CHAT, texts)
    value = type(AWARD)(
        AWARD.request_id,
        AWARD.bid_id,
        AWARD.cid,
        1,
        prompt,
        AWARD.prompt_key,
        AWARD.parameters,
        None,
        VOUCHER,
        AWARD.signature,
    )
    with pytest.raises(LocalError, match=r"wire\.unencodable"):
        wire.encode(value)
