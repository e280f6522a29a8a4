"""Messages: what is encoded is decoded, and nothing else is.

Source: protocol/README.md "Canonical form"; protocol/wire.py.
"""

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits, records, wire
from protocol.crypto import Signer
from protocol.envelope import open_envelope, sign_envelope
from protocol.errors import LocalError, RemoteError, StorageError
from protocol.fields import GenerationParameters, InferenceType, Prompt
from protocol.messages import BY_NUMBER, Cancel, Chunk, Refuse, Request, VoucherAck
from tests.protocol import reference
from tests.protocol.strategies import edges, values
from tests.vectors.samples import AWARD, CID, MESSAGES, NETWORK, RECORDS, VOUCHER

TYPES = sorted(BY_NUMBER.items())
IDS = [cls.__name__ for _, cls in TYPES]
EDGES = [
    pytest.param(number, value, allowed, id=f"{cls.__name__} {where}")
    for number, cls in TYPES
    for where, value, allowed in edges(cls)
]
RECORD_EDGES = [
    pytest.param(number, value, allowed, id=f"{cls.__name__} {where}")
    for number, cls in sorted(records.RECORDS.items())
    for where, value, allowed in edges(cls)
]
WIRE_CODES = {
    "wire.truncated",
    "wire.oversized",
    "wire.malformed",
    "wire.unknown_type",
    "wire.bad_field",
    "wire.not_canonical",
}
CANCEL = wire.encode(Cancel(CID, 4))
HEADERS = {
    0xC4: 1,
    0xC5: 2,
    0xC6: 4,
    0xD9: 1,
    0xDA: 2,
    0xDB: 4,
    0xDC: 2,
    0xDD: 4,
    0xDE: 2,
    0xDF: 4,
    0xC7: 1,
    0xC8: 2,
    0xC9: 4,
}


def refusal(data: bytes) -> str:
    """The code that `decode` refuses `data` with; any other exception goes up."""
    with pytest.raises(RemoteError) as caught:
        wire.decode(data)
    newer = caught.value.code == "wire.unknown_type"
    assert caught.value.penalize is not newer, "an offence, but for a newer version's message"
    return caught.value.code


def decoded(data: bytes) -> Any:
    """The message, or None for a refusal by a code of the wire; other exceptions go up."""
    try:
        value = wire.decode(data)
    except RemoteError as error:
        code = error.code
    else:
        return value
    assert code in WIRE_CODES
    return None


@pytest.mark.parametrize(("number", "cls"), TYPES, ids=IDS)
@given(data=st.data())
def test_every_message_survives_the_round_trip(
    number: int, cls: type, data: st.DataObject
) -> None:
    """decode(encode(m)) == m, and the bytes are those that the specification gives by hand."""
    value = data.draw(values(cls))
    encoded = wire.encode(value)
    assert encoded == reference.message(number, value)
    assert wire.decode(encoded) == value


@pytest.mark.parametrize(("number", "cls"), sorted(records.RECORDS.items()))
@given(data=st.data())
def test_every_record_survives_the_round_trip(number: int, cls: type, data: st.DataObject) -> None:
    """A log record is its fields alone; the number stands in the frame. README, "The log"."""
    value = data.draw(values(cls))
    assert records.encode_record(value) == (number, reference.pack(value))
    assert records.decode_record(number, reference.pack(value)) == value


@pytest.mark.parametrize(("number", "value", "allowed"), EDGES)
def test_every_bound_holds_in_both_directions(number: int, value: Any, allowed: bool) -> None:
    """At a bound a value passes; one beyond it, neither side lets it through. README tables."""
    data = reference.message(number, value)
    if not allowed:
        with pytest.raises(LocalError, match=r"wire\.unencodable"):
            wire.encode(value)
        assert refusal(data) in {"wire.bad_field", "wire.malformed", "wire.oversized"}
    elif len(data) > limits.FRAME_BYTES_MAX:
        with pytest.raises(LocalError, match=r"wire\.unencodable"):
            wire.encode(value)
        assert refusal(data) == "wire.oversized"
    else:
        assert wire.encode(value) == data
        assert wire.decode(data) == value


@pytest.mark.parametrize(("number", "value", "allowed"), RECORD_EDGES)
def test_every_bound_of_a_record_holds(number: int, value: Any, allowed: bool) -> None:
    """As for messages; a record that breaks a bound is damage, not a peer's offence."""
    if allowed:
        assert records.decode_record(*records.encode_record(value)) == value
        return
    with pytest.raises(LocalError, match=r"wire\.unencodable"):
        records.encode_record(value)
    with pytest.raises(StorageError, match=r"storage\.corrupt"):
        records.decode_record(number, reference.pack(value))


def test_a_record_of_an_unknown_number_is_corruption() -> None:
    """Numbers are never reused, so nobody wrote it. protocol/records.py."""
    with pytest.raises(StorageError, match=r"storage\.corrupt"):
        records.decode_record(200, b"\x90")


@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_no_other_encoding_of_a_message_is_taken(name: str, data: st.DataObject) -> None:
    """Any one header or integer written wider than need be is refused. README."""
    encoded = wire.encode(MESSAGES[name])
    wider = list(_widened(encoded))
    assert refusal(data.draw(st.sampled_from(wider))) == "wire.not_canonical"


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_no_other_encoding_of_a_record_is_taken(name: str) -> None:
    """Every single item written wider than need be: a log has one reading and one writing."""
    number, payload = records.encode_record(RECORDS[name])
    for wider in _widened(payload):
        with pytest.raises(StorageError, match=r"storage\.corrupt .*wire\.not_canonical"):
            records.decode_record(number, wider)


def test_no_other_encoding_of_an_envelope_is_taken() -> None:
    """Else a stranger could give one signed envelope many message ids. README."""
    signer = Signer(bytes(32))
    signed = sign_envelope(signer, NETWORK, MESSAGES["Request"], 1)
    wider = _widened(signed.data)
    assert len(wider) == 7  # the array and its six fields
    for data in wider:
        with pytest.raises(RemoteError, match=r"wire\.not_canonical"):
            open_envelope(data, NETWORK, None, allowed=(Request,))


def _widened(data: bytes) -> list[bytes]:
    """Every version of `data` in which one item has the next wider header."""
    found: list[bytes] = []
    offset = 0
    while offset < len(data):
        head = data[offset]
        size = HEADERS.get(head, {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}.get(head, 0))
        length = int.from_bytes(data[offset + 1 : offset + 1 + size], "big")
        before, after = data[:offset], data[offset + 1 + size :]
        wide = b""
        if head < 0x80:
            wide = bytes([0xCC, head])
        elif 0x90 <= head < 0xA0:
            wide = b"\xdc" + (head & 0xF).to_bytes(2, "big")
        elif 0xA0 <= head < 0xC0:
            wide = bytes([0xD9, head & 0x1F])
        elif head in (0xC4, 0xC5, 0xCC, 0xCD, 0xCE, 0xD9, 0xDA, 0xDC):
            wide = bytes([head + 1]) + length.to_bytes(2 * size, "big")
        if wide:
            found.append(before + wide + after)
        body = length if head in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB) else 0
        body += head & 0x1F if 0xA0 <= head < 0xC0 else 0
        offset += 1 + size + body
    return found


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_message_cut_anywhere_is_truncated(name: str) -> None:
    """Every proper prefix is `wire.truncated`: nothing short passes for something else."""
    encoded = wire.encode(MESSAGES[name])
    for length in range(len(encoded)):
        assert refusal(encoded[:length]) == "wire.truncated", length


@pytest.mark.parametrize("name", [name for name in MESSAGES if "_" not in name])
def test_a_changed_byte_gives_a_code_or_another_message(name: str) -> None:
    """Each byte of each golden message, changed in single bits and to the types' first bytes:
    a coded refusal, or another message in its own only encoding; never another exception."""
    encoded = wire.encode(MESSAGES[name])
    for offset, byte in enumerate(encoded):
        others = {byte ^ 1, byte ^ 0x10, byte ^ 0x80, byte ^ 0xFF, 0x80, 0x90, 0xC0, 0xC1, 0xCA}
        for other in sorted(others - {byte}):
            changed = encoded[:offset] + bytes([other]) + encoded[offset + 1 :]
            value = decoded(changed)
            if value is not None:
                assert value != MESSAGES[name]
                assert wire.encode(value) == changed


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_a_code(data: bytes) -> None:
    """Nothing that a stranger sends raises anything but RemoteError."""
    value = decoded(data)
    assert value is None or wire.encode(value) == data


_JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    # Lengths that fields have, so that a value gets as far as its meaning.
    | st.sampled_from([bytes(16), bytes(32), bytes(64), "a" * 24, "QUFB" * 11])
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.sampled_from(sorted(MESSAGES)), st.data(), _JUNK)
def test_a_field_replaced_by_anything_gives_a_code(
    name: str, data: st.DataObject, junk: Any
) -> None:
    """Well-formed msgpack of the wrong shape: floats, maps, booleans, null, text for bytes."""
    items = msgpack.unpackb(wire.encode(MESSAGES[name]))
    items[data.draw(st.integers(0, len(items) - 1))] = junk
    encoded: bytes = msgpack.packb(items)
    value = decoded(encoded)
    assert value is None or wire.encode(value) == encoded


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
        pytest.param(b"\x91\x04", "wire.unknown_type", id="a number that is not taken"),
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


@given(values(GenerationParameters))
def test_parts_without_a_number_survive_the_round_trip(value: GenerationParameters) -> None:
    """What is hashed on its own (terms, parameters, prompt) is the array of its fields."""
    assert wire.encode_fields(value) == reference.pack(value)
    assert wire.decode_fields(GenerationParameters, reference.pack(value)) == value
