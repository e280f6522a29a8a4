"""Golden vectors: the bytes that peers and logs hold, read by encode and by decode.

Source: tests/vectors/messages.json; protocol/README.md, "Golden vectors". A vector that fails
here means that the wire changed for everybody: never edit it.
"""

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from nacl.public import PrivateKey, SealedBox

from protocol import crypto, messages, records, signing, transcript, wire
from protocol.envelope import open_envelope, sign_envelope
from protocol.framing import FrameReader, frame
from tests.protocol import reference
from tests.vectors import make, samples
from tests.vectors.plain import from_plain, to_plain

GOLDEN: dict[str, Any] = json.loads(make.PATH.read_text())
NETWORK: str = GOLDEN["network"]
KEYS: dict[str, Any] = GOLDEN["keys"]


def entries(section: str) -> list[Any]:
    return [pytest.param(entry, id=name) for name, entry in GOLDEN[section].items()]


def signer(name: str) -> crypto.Signer:
    return crypto.Signer(bytes.fromhex(KEYS[name]["seed"]))


def arguments(function: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(function, include_extras=True)
    return {name: from_plain(hints[name], plain) for name, plain in inputs.items()}


@pytest.mark.parametrize("entry", entries("messages"))
def test_messages_are_the_golden_bytes(entry: dict[str, Any]) -> None:
    """Both directions, and by the second encoder that shares no code with the first."""
    cls = messages.BY_NUMBER[entry["number"]]
    value = from_plain(cls, entry["fields"])
    data = bytes.fromhex(entry["hex"])
    assert cls.__name__ == entry["message"]
    assert wire.encode(value) == data
    assert wire.decode(data) == value
    assert reference.message(entry["number"], value) == data


@pytest.mark.parametrize("entry", entries("records"))
def test_records_are_the_golden_bytes(entry: dict[str, Any]) -> None:
    """A log that was written once is read for ever."""
    cls = records.RECORDS[entry["number"]]
    value = from_plain(cls, entry["fields"])
    data = bytes.fromhex(entry["hex"])
    assert cls.__name__ == entry["record"]
    assert records.encode_record(value) == (entry["number"], data)
    assert records.decode_record(entry["number"], data) == value


def test_every_type_has_a_vector() -> None:
    """A change that adds a message or record adds its vector.."""
    held = {(entry["number"], entry["message"]) for entry in GOLDEN["messages"].values()}
    assert held >= {(number, cls.__name__) for number, cls in messages.BY_NUMBER.items()}
    held = {(entry["number"], entry["record"]) for entry in GOLDEN["records"].values()}
    assert held >= {(number, cls.__name__) for number, cls in records.RECORDS.items()}
    assert set(GOLDEN["envelopes"]) == {"Request", "SealedBid", "Bid", "PeerRecord"}


def test_the_golden_messages_pass_byte_by_byte() -> None:
    """All of them in one stream, a byte at a time: the same bodies, in order, nothing left."""
    bodies = [bytes.fromhex(entry["hex"]) for entry in GOLDEN["messages"].values()]
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    assert b"".join(map(frame, bodies)) == stream
    reader = FrameReader()
    found = [body for byte in stream for body in reader.feed(bytes([byte]))]
    assert found == bodies
    assert reader.pending_bytes == 0


@pytest.mark.parametrize("name", KEYS)
def test_keys_follow_from_their_seeds(name: str) -> None:
    """ed25519 of RFC 8032 for the parties, X25519 for the box."""
    seed = bytes.fromhex(KEYS[name]["seed"])
    public_key = crypto.box_public_key(seed) if name == "box" else crypto.Signer(seed).public_key
    assert public_key.hex() == KEYS[name]["public_key"]


@pytest.mark.parametrize("entry", entries("domain_tags"))
def test_domain_tags(entry: dict[str, str]) -> None:
    """README, "Domain tags", computed here by the specification's words."""
    expected = bytes.fromhex(entry["hex"])
    assert crypto.domain_tag(entry["network"], entry["thing"]) == expected
    assert reference.tag(entry["network"], entry["thing"]) == expected


@pytest.mark.parametrize("name", GOLDEN["signatures"])
def test_signed_layouts(name: str) -> None:
    """The bytes under each signature, and the signature, deterministic by RFC 8032."""
    entry = GOLDEN["signatures"][name]
    inputs = arguments(getattr(signing, name), entry["inputs"])
    signed = bytes.fromhex(entry["hex"])
    assert getattr(signing, name)(NETWORK, **inputs) == signed
    assert getattr(reference, name)(NETWORK, **inputs) == signed
    who = signer(entry["signer"])
    assert who.sign(signed).hex() == entry["signature"]
    assert crypto.verify(who.public_key, signed, bytes.fromhex(entry["signature"]))


@pytest.mark.parametrize("entry", entries("digests"))
def test_digests(entry: dict[str, Any]) -> None:
    """Channel id, lanes root, receipt id, prompt commitment, transcript."""
    name = entry["function"]
    function = getattr(signing, name, None) or getattr(transcript, name)
    inputs = arguments(function, entry["inputs"])
    assert function(**inputs).hex() == entry["hex"]
    assert getattr(reference, name)(**inputs).hex() == entry["hex"]


@pytest.mark.parametrize("entry", entries("envelopes"))
def test_envelopes(entry: dict[str, Any]) -> None:
    """Signing gives the golden bytes and digest; opening gives the message back."""
    message = from_plain(
        getattr(messages, entry["message"]), GOLDEN["messages"][entry["message"]]["fields"]
    )
    who, at_ns, data = signer(entry["signer"]), entry["sent_at_ns"], bytes.fromhex(entry["hex"])
    signed = sign_envelope(who, NETWORK, message, at_ns)
    assert (signed.data, signed.digest.hex()) == (data, entry["digest"])
    assert open_envelope(data, NETWORK, at_ns, allowed=(type(message),)) == signed
    body = reference.message(messages.NUMBERS[type(message)], message)
    layout = reference.envelope_bytes(NETWORK, who.public_key, at_ns, body)
    assert reference.digest(layout) == signed.digest
    tag = reference.tag(NETWORK, "network")
    assert reference.pack((1, tag, who.public_key, at_ns, body, who.sign(layout))) == data


@pytest.mark.parametrize("entry", entries("sealed_boxes"))
def test_sealed_boxes(entry: dict[str, str]) -> None:
    """Ours, and libsodium's own crypto_box_seal_open, open the golden box."""
    secret = bytes.fromhex(KEYS[entry["recipient"]]["seed"])
    plaintext, sealed = bytes.fromhex(entry["plaintext"]), bytes.fromhex(entry["hex"])
    ephemeral = bytes.fromhex(entry["ephemeral_seed"])
    assert crypto.seal(crypto.box_public_key(secret), plaintext, ephemeral) == sealed
    assert crypto.unseal(secret, sealed) == plaintext
    assert SealedBox(PrivateKey(secret)).decrypt(sealed) == plaintext


def test_no_vector_is_missing_or_changed() -> None:
    """The file holds all that the generator knows, as it is; run it when this says `added`."""
    golden = json.loads(make.PATH.read_text())
    assert make.add(golden, make.sections()) == ([], [])


def test_the_generator_only_adds(tmp_path: Path) -> None:
    """A missing vector comes back; a changed one is reported and nothing is written."""
    path = tmp_path / "vectors.json"
    assert make.main(path) == 0
    whole = json.loads(path.read_text())
    assert whole == GOLDEN
    del whole["messages"]["Cancel"]
    path.write_text(json.dumps(whole))
    assert make.main(path) == 0
    assert json.loads(path.read_text()) == GOLDEN
    whole = json.loads(path.read_text())
    whole["messages"]["Cancel"]["hex"] = "90"
    del whole["messages"]["Accept"]
    path.write_text(json.dumps(whole))
    assert make.main(path) == 1
    assert json.loads(path.read_text()) == whole


def test_plain_values_lose_nothing() -> None:
    """The JSON form of the vectors can be read back into the same values."""
    for name, value in samples.MESSAGES.items():
        plain = json.loads(json.dumps(to_plain(value)))
        assert from_plain(type(value), plain) == value, name
