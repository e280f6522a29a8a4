"""Signatures, digests and sealed boxes, against RFC 8032 and libsodium itself.

Source: protocol/README.md, "Identity" and "Sealed box"; RFC 8032 7.1; libsodium "Sealed boxes".
"""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey, PublicKey, SealedBox

from protocol import crypto
from protocol.errors import LocalError, RemoteError

SEEDS = st.binary(min_size=32, max_size=32)
# The X25519 points of small order, in every encoding below 2^255 (RFC 7748, 6.1 warns of them):
# whoever seals to one shares its key with everybody.
LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]
# RFC 8032, 7.1, TEST 2.
RFC_SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
RFC_KEY = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
RFC_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def test_signatures_are_those_of_rfc_8032() -> None:
    """Key from seed, deterministic signature, verification."""
    signer = crypto.Signer(RFC_SEED)
    assert signer.public_key == RFC_KEY
    assert signer.sign(b"\x72") == RFC_SIGNATURE
    assert crypto.verify(RFC_KEY, b"\x72", RFC_SIGNATURE)


@given(SEEDS, st.binary(max_size=100), st.data())
def test_a_signature_fits_one_key_and_message(
    seed: bytes, message: bytes, data: st.DataObject
) -> None:
    """A flipped bit in key, message or signature makes it worthless."""
    signer = crypto.Signer(seed)
    parts = [signer.public_key, message, signer.sign(message)]
    assert crypto.verify(*parts)
    which = data.draw(st.sampled_from([0, 2] if not message else [0, 1, 2]))
    bit = data.draw(st.integers(0, 8 * len(parts[which]) - 1))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    assert not crypto.verify(*parts)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 63, 65])
def test_a_key_or_signature_of_another_length_is_not_valid(length: int) -> None:
    """False, never an exception."""
    assert not crypto.verify(bytes(length), b"m", RFC_SIGNATURE)
    assert not crypto.verify(RFC_KEY, b"m", bytes(length))


@pytest.mark.parametrize(
    "key", [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"], ids=bytes.hex
)
def test_a_key_of_small_order_signs_nothing(key: bytes) -> None:
    """Else one signature would fit every message: R of small order, S of 0."""
    for signature in (bytes(64), key + bytes(32), b"\1" + bytes(63)):
        assert not crypto.verify(key, b"m", signature)


def test_a_signature_has_one_form() -> None:
    """S + L would verify by the bare equation; libsodium refuses it (RFC 8032, 5.1.7)."""
    larger = int.from_bytes(RFC_SIGNATURE[32:], "little") + ED25519_ORDER
    assert not crypto.verify(RFC_KEY, b"\x72", RFC_SIGNATURE[:32] + larger.to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_seed_is_32_bytes(length: int) -> None:
    """Our own key file is checked before it is used."""
    with pytest.raises(LocalError, match=r"config\.key_bad"):
        crypto.Signer(bytes(length))


def test_digests_are_blake2b_256() -> None:
    """Unkeyed and keyed, of the parts joined; the empty one is that of RFC 7693's function."""
    empty = "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
    assert crypto.digest().hex() == empty
    assert crypto.digest(b"a", b"bc") == crypto.digest(b"abc")
    keyed = blake2b(b"abc", digest_size=32, key=b"k" * 32).digest()
    assert crypto.digest(b"abc", key=b"k" * 32) == keyed != crypto.digest(b"abc")


@given(SEEDS, SEEDS, st.binary(max_size=500))
def test_libsodium_opens_our_boxes(secret: bytes, ephemeral: bytes, plaintext: bytes) -> None:
    """crypto_box_seal_open of what `seal` made; 48 bytes longer than what is in it."""
    sealed = crypto.seal(crypto.box_public_key(secret), plaintext, ephemeral)
    assert len(sealed) == len(plaintext) + crypto.SEAL_OVERHEAD_BYTES
    assert SealedBox(PrivateKey(secret)).decrypt(sealed) == plaintext
    assert crypto.unseal(secret, sealed) == plaintext


@given(SEEDS, st.binary(max_size=500))
def test_we_open_the_boxes_of_libsodium(secret: bytes, plaintext: bytes) -> None:
    """`unseal` of what crypto_box_seal made."""
    recipient = PublicKey(crypto.box_public_key(secret))
    assert crypto.unseal(secret, SealedBox(recipient).encrypt(plaintext)) == plaintext


@given(SEEDS, SEEDS, st.binary(max_size=60), st.data())
def test_a_changed_box_does_not_open(
    secret: bytes, ephemeral: bytes, plaintext: bytes, data: st.DataObject
) -> None:
    """Any flipped bit, and any cut, is `bid.bad_seal`."""
    sealed = crypto.seal(crypto.box_public_key(secret), plaintext, ephemeral)
    # Bit 255 of an X25519 key is ignored by its definition, yet it is hashed into the nonce.
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    changed = bytearray(sealed)
    changed[bit // 8] ^= 1 << bit % 8
    for bad in (bytes(changed), sealed[: data.draw(st.integers(0, len(sealed) - 1))]):
        with pytest.raises(RemoteError, match=r"bid\.bad_seal"):
            crypto.unseal(secret, bad)


@pytest.mark.parametrize("key", LOW_ORDER, ids=bytes.hex)
def test_keys_of_low_order_are_refused_both_ways(key: bytes) -> None:
    """Nobody seals to such a request's key, and a box from such a key does not open."""
    with pytest.raises(RemoteError, match=r"wire\.bad_field") as caught:
        crypto.seal(key, b"bid", b"\7" * 32)
    assert caught.value.penalize
    with pytest.raises(RemoteError, match=r"bid\.bad_seal"):
        crypto.unseal(b"\7" * 32, key + bytes(40))
