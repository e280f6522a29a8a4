"""The envelope: who, where, when; each part that is not right has its code.

Source: protocol/README.md, "Envelope".
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import crypto, limits, wire
from protocol.envelope import Envelope, Signed, open_envelope, sign_envelope
from protocol.errors import LocalError, RemoteError
from protocol.messages import Bid, Cancel, PeerList, PeerRecord, Request, SealedBid
from tests.protocol import reference
from tests.protocol.strategies import values
from tests.vectors.samples import BID, CID, MESSAGES, NETWORK, NOW_NS, REQUEST

SIGNER = crypto.Signer(bytes(range(32)))
OTHER = crypto.Signer(bytes(32))
SIGNED = sign_envelope(SIGNER, NETWORK, REQUEST, NOW_NS)
FIELDS: Envelope = wire.decode_fields(Envelope, SIGNED.data)
ENVELOPED = (Request, SealedBid, Bid, PeerRecord)


def opened(data: bytes, now_ns: int | None = NOW_NS, network: str = NETWORK) -> Signed:
    return open_envelope(data, network, now_ns, allowed=(Request,))


def refused(data: bytes, now_ns: int | None = NOW_NS, network: str = NETWORK) -> tuple[str, bool]:
    """The code, and whether it is an offence."""
    with pytest.raises(RemoteError) as caught:
        opened(data, now_ns, network)
    return caught.value.code, caught.value.penalize


def altered(**changes: Any) -> bytes:
    """The envelope with fields replaced and the signature left as it was."""
    return wire.encode_fields(replace(FIELDS, **changes))


@pytest.mark.parametrize("cls", ENVELOPED)
@given(data=st.data())
def test_what_is_signed_is_opened(cls: type, data: st.DataObject) -> None:
    """Sender, date, message and digest come back, for any message that travels so."""
    message = data.draw(values(cls))
    at_ns = data.draw(st.integers(0, limits.U63_MAX))
    network = data.draw(st.text(min_size=1, max_size=20))
    signed = sign_envelope(SIGNER, network, message, at_ns)
    assert open_envelope(signed.data, network, at_ns, allowed=(cls,)) == signed
    assert signed.message == message
    assert (signed.sender, signed.sent_at_ns) == (SIGNER.public_key, at_ns)
    layout = reference.envelope_bytes(network, SIGNER.public_key, at_ns, wire.encode(message))
    assert signed.digest == reference.digest(layout)


@pytest.mark.parametrize(
    ("changes", "code", "penalized"),
    [
        pytest.param({"version": 0}, "envelope.wrong_version", False, id="version 0"),
        pytest.param({"version": 2}, "envelope.wrong_version", False, id="version 2"),
        pytest.param({"network_tag": bytes(16)}, "envelope.wrong_network", False, id="network"),
        pytest.param({"sender": OTHER.public_key}, "envelope.bad_signature", True, id="sender"),
        pytest.param({"sender": bytes(32)}, "envelope.bad_signature", True, id="weak sender"),
        pytest.param({"sent_at_ns": NOW_NS - 1}, "envelope.bad_signature", True, id="date"),
        pytest.param({"signature": bytes(64)}, "envelope.bad_signature", True, id="signature"),
        pytest.param(
            {"body": wire.encode(replace(REQUEST, redundancy=2))},
            "envelope.bad_signature",
            True,
            id="body",
        ),
        pytest.param({"body": b""}, "envelope.bad_signature", True, id="no body"),
    ],
)
def test_a_changed_field_has_its_code(changes: dict[str, Any], code: str, penalized: bool) -> None:
    """Another version or network is nobody's fault; what the signature covers is."""
    assert refused(altered(**changes)) == (code, penalized)


def test_a_changed_byte_anywhere_is_refused() -> None:
    """No bit of an envelope is outside of its signature, its network or its one encoding."""
    for offset in range(len(SIGNED.data)):
        for bit in range(8):
            changed = bytearray(SIGNED.data)
            changed[offset] ^= 1 << bit
            code, _ = refused(bytes(changed))
            assert code.startswith(("wire.", "envelope.")), (offset, bit)


def test_an_envelope_cut_anywhere_is_refused() -> None:
    """Every proper prefix, by the wire's own code."""
    for length in range(len(SIGNED.data)):
        assert refused(SIGNED.data[:length]) == ("wire.truncated", True)


@pytest.mark.parametrize(
    ("age_ns", "code"),
    [
        (limits.FRESHNESS_NS, None),
        (limits.FRESHNESS_NS + 1, "envelope.stale"),
        (0, None),
        (-limits.CLOCK_SKEW_NS, None),
        (-limits.CLOCK_SKEW_NS - 1, "envelope.from_future"),
    ],
)
def test_freshness_is_exact_and_no_offence(age_ns: int, code: str | None) -> None:
    """60 s old and 10 s ahead are the last that pass; a clock that is off is no crime."""
    if code is None:
        assert opened(SIGNED.data, NOW_NS + age_ns) == SIGNED
    else:
        assert refused(SIGNED.data, NOW_NS + age_ns) == (code, False)


def test_evidence_has_no_age() -> None:
    """Read from a log (`now_ns` None) it opens for ever; its signature is still checked."""
    assert opened(SIGNED.data, None) == SIGNED
    assert refused(altered(signature=bytes(64)), None) == ("envelope.bad_signature", True)


def test_a_peer_record_lives_longer() -> None:
    """`lifetime_ns` replaces the 60 s. README, "Peer exchange"."""
    record = sign_envelope(SIGNER, NETWORK, PeerRecord(("/ip4/192.0.2.1/tcp/1",)), NOW_NS)
    life = limits.PEER_RECORD_LIFETIME_NS
    for age_ns, fresh in ((life, True), (life + 1, False)):
        try:
            open_envelope(
                record.data, NETWORK, NOW_NS + age_ns, allowed=(PeerRecord,), lifetime_ns=life
            )
        except RemoteError as error:
            code = error.code
        else:
            code = ""
        assert code == ("" if fresh else "envelope.stale")


def test_another_network_can_not_read_it() -> None:
    """And says so before any signature is checked."""
    assert refused(SIGNED.data, network="golden2") == ("envelope.wrong_network", False)


def test_cheap_checks_come_first() -> None:
    """Version, network and age cost nothing; a signature does, and is not checked for those."""
    checked: list[bytes] = []

    def verify(key: bytes, message: bytes, signature: bytes) -> bool:
        checked.append(key)
        return True

    cases = [
        (altered(version=2), NOW_NS),
        (altered(network_tag=bytes(16)), NOW_NS),
        (SIGNED.data, NOW_NS + 2 * limits.FRESHNESS_NS),
        (SIGNED.data, NOW_NS - 2 * limits.CLOCK_SKEW_NS),
        (SIGNED.data + b"\0", NOW_NS),
        (bytes(limits.GOSSIP_BYTES_MAX + 1), NOW_NS),
    ]
    for data, now_ns in cases:
        with pytest.raises(RemoteError):
            open_envelope(data, NETWORK, now_ns, allowed=(Request,), verify=verify)
    assert checked == []
    opening = open_envelope(SIGNED.data, NETWORK, NOW_NS, allowed=(Request,), verify=verify)
    assert (opening, checked) == (SIGNED, [SIGNER.public_key])


def test_content_that_does_not_belong_is_refused() -> None:
    """A well-signed message of another kind, and a body that is no message at all."""
    bid = sign_envelope(SIGNER, NETWORK, BID, NOW_NS)
    assert refused(bid.data) == ("envelope.wrong_content", True)
    cancel = sign_envelope(SIGNER, NETWORK, Cancel(CID, 1), NOW_NS)
    assert refused(cancel.data) == ("envelope.wrong_content", True)
    body = b"\x93\x01"
    layout = reference.envelope_bytes(NETWORK, SIGNER.public_key, NOW_NS, body)
    garbage = altered(body=body, signature=SIGNER.sign(layout))
    assert refused(garbage) == ("wire.truncated", True)


def test_the_digest_names_the_content_not_the_signature() -> None:
    """Two valid signatures of one thing (ed25519 lets its signer make many) are one thing."""
    again = open_envelope(
        altered(signature=bytes(64)),
        NETWORK,
        NOW_NS,
        allowed=(Request,),
        verify=lambda *_: True,
    )
    assert again.digest == SIGNED.digest
    assert again.data != SIGNED.data
    later = sign_envelope(SIGNER, NETWORK, REQUEST, NOW_NS + 1)
    assert later.digest != SIGNED.digest


def test_an_oversized_envelope_is_refused() -> None:
    """Gossip over its limit is `wire.oversized`, and a body over it is not even signed."""
    assert refused(bytes(limits.GOSSIP_BYTES_MAX + 1)) == ("wire.oversized", True)
    big = PeerList((bytes(4_096),) * 5)
    with pytest.raises(LocalError, match=r"wire\.unencodable"):
        sign_envelope(SIGNER, NETWORK, big, NOW_NS)


def test_the_largest_of_each_kind_fits_its_limit() -> None:
    """Bounds of fields never add up to an envelope that is signed here and refused there."""
    address, wide = "\U0001f3b2" * limits.ADDRESS_CHARS_MAX, limits.PROVIDERS_FILTER_MAX
    addresses = (address,) * limits.ADDRESSES_MAX
    filters = replace(
        REQUEST.filters,
        model_digest=bytes(32),
        providers_only=(bytes(32),) * wide,
        providers_ignored=(bytes(32),) * wide,
    )
    model = "\U0001f3b2" * limits.MODEL_NAME_CHARS_MAX
    largest = [
        replace(REQUEST, model=model, filters=filters, addresses=addresses),
        SealedBid(bytes(32), bytes(limits.SEALED_BID_BYTES_MAX)),
        PeerRecord(addresses),
    ]
    for message in largest:
        signed = sign_envelope(SIGNER, NETWORK, message, NOW_NS)
        opening = open_envelope(signed.data, NETWORK, NOW_NS, allowed=(type(message),))
        assert opening == signed


def test_a_bid_with_real_addresses_fits_its_box() -> None:
    """Eight addresses of 256 ASCII characters, in an envelope, in a box, in a frame."""
    bid = replace(BID, addresses=("a" * limits.ADDRESS_CHARS_MAX,) * limits.ADDRESSES_MAX)
    signed = sign_envelope(SIGNER, NETWORK, bid, limits.U63_MAX)
    sealed = crypto.seal(crypto.box_public_key(bytes(32)), signed.data, bytes(range(32)))
    assert len(wire.encode(SealedBid(bytes(32), sealed))) <= limits.BID_FRAME_BYTES_MAX


def test_vectors_hold_an_envelope_of_each_kind() -> None:
    """The kinds that travel in envelopes are those that README says."""
    assert {type(MESSAGES[cls.__name__]) for cls in ENVELOPED} == set(ENVELOPED)
