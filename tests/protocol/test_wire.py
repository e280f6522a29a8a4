"""Messages: what is encoded is decoded, and nothing else is.

Source: protocol/README.md "Canonical form"; protocol/wire.py.
"""

from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits, records, wire
from protocol.crypto import Signer
from protocol.envelope import open_envelope, sign_envelope
from protocol.errors import LocalError, RemoteError, StorageError
from protocol.fields import GenerationParameters
from protocol.messages import BY_NUMBER, Request
from tests.protocol import reference
from tests.protocol.refusals import decoded, refusal
from tests.protocol.strategies import edges, values
from tests.vectors.samples import MESSAGES, NETWORK, RECORDS

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


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_no_other_encoding_of_a_message_is_taken(name: str) -> None:
    """Any one header or integer written wider than need be is refused. README."""
    for wider in _widened(wire.encode(MESSAGES[name])):
        assert refusal(wider) == "wire.not_canonical"


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_no_other_encoding_of_a_record_is_taken(name: str) -> None:
    """Every single item written wider than need be: a log has one reading and one writing."""
    number, payload = records.encode_record(RECORDS[name])
    for wider in _widened(payload):
        with pytest.raises(StorageError, match=r"storage\.corrupt .*wire\.not_canonical"):
            records.decode_record(number, wider)


def test_an_optional_field_is_written_only_where_it_says_something() -> None:
    """Left out while it is empty, refused when it is written empty, and nothing comes after it."""
    short = msgpack.unpackb(wire.encode(MESSAGES["Chunk"]), use_list=False)
    long = msgpack.unpackb(wire.encode(MESSAGES["Chunk.logprobs"]), use_list=False)
    assert len(long) == len(short) + 1
    assert refusal(msgpack.packb((*short, ()))) == "wire.not_canonical"
    assert refusal(msgpack.packb((*long, ()))) == "wire.bad_field"
    assert refusal(msgpack.packb(short[:-1])) == "wire.bad_field"
    parameters = MESSAGES["Award"].parameters
    encoded = msgpack.unpackb(wire.encode_fields(parameters), use_list=False)
    with pytest.raises(RemoteError, match=r"wire\.not_canonical"):
        wire.decode_fields(GenerationParameters, msgpack.packb((*encoded, ())))


def test_no_other_encoding_of_an_envelope_is_taken() -> None:
    """Else a stranger could give one signed envelope many message ids. README."""
    signer = Signer(bytes(32))
    signed = sign_envelope(signer, NETWORK, MESSAGES["Request"], 1)
    wider = _widened(signed.data)
    assert len(wider) == 7  # the array and its six fields
    for data in wider:
        with pytest.raises(RemoteError, match=r"wire\.not_canonical"):
            open_envelope(data, NETWORK, None, allowed=(Request,))


INTEGERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}


def _widened(data: bytes) -> list[bytes]:
    """Every version of `data` in which one item has the next wider header."""
    found: list[bytes] = []
    offset = 0
    while offset < len(data):
        head = data[offset]
        size = HEADERS.get(head, INTEGERS.get(head, 0))
        length = int.from_bytes(data[offset + 1 : offset + 1 + size], "big")
        before, after = data[:offset], data[offset + 1 + size :]
        wide = b""
        if head < 0x80:
            wide = bytes([0xCC, head])
        elif head >= 0xE0:
            wide = bytes([0xD0, head])
        elif head in (0xD0, 0xD1, 0xD2):
            negative = int.from_bytes(data[offset + 1 : offset + 1 + size], "big", signed=True)
            wide = bytes([head + 1]) + negative.to_bytes(2 * size, "big", signed=True)
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


@given(values(GenerationParameters))
def test_parts_without_a_number_survive_the_round_trip(value: GenerationParameters) -> None:
    """What is hashed on its own (terms, parameters, prompt) is the array of its fields."""
    assert wire.encode_fields(value) == reference.pack(value)
    assert wire.decode_fields(GenerationParameters, reference.pack(value)) == value
