"""What a stream may carry: garbage, wrong directions and floods end it, and blame its sender.

Source: protocol/README.md, "Session"; the design's "Who sees what": everything is bounded.
"""

import pytest

from protocol import limits, wire
from protocol.framing import frame
from protocol.messages import Cancel, Chunk, JobFailed, NeedVoucher, VoucherAck
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router.actions import SessionKey
from tests.router.hand_payer import HandPayer, Shop, blamed, of_kind
from tests.router.support import (
    channels,
    codes_against,
    failure,
    frame_of,
    key_of,
    make_ask,
    make_world,
    same_totals,
    stranger,
    succeeded,
    tamper,
)

CID = bytes(32)
GARBAGE: dict[str, tuple[bytes, str]] = {
    "not msgpack": (frame(b"\xc1"), "wire.malformed"),
    "no array": (frame(b"\x01"), "wire.malformed"),
    "empty": (bytes(4), "wire.malformed"),
    "oversize": ((limits.FRAME_BYTES_MAX + 1).to_bytes(4, "big"), "wire.oversized"),
    "short": (frame(wire.encode(Cancel(CID, 1))[:-1]), "wire.truncated"),
    "field": (frame(wire._pack((22, b"short", 1))), "wire.bad_field"),
    "padded": (frame(wire.encode(Cancel(CID, 1))[:-1] + b"\xcc\x01"), "wire.not_canonical"),
}
FROM_PAYEE = [
    Chunk(CID, 1, 1, "x", 1, 1, 1, CID, bytes(64)),
    VoucherAck(CID, 1),
    NeedVoucher(CID, 1, 1),
    JobFailed(CID, 1, "engine.crashed"),
]


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_from_a_payer(name: str) -> None:
    """The stream is closed with the code and the payer blamed; the provider serves on."""
    data, code = GARBAGE[name]
    shop = Shop()
    payer = HandPayer(shop)
    payer.start(3)
    actions = payer.send_bytes(data)
    assert blamed(actions) == [code]
    assert [(a.session, a.code) for a in of_kind(actions, act.CloseSession)] == [
        (payer.session, code)
    ]
    assert len(of_kind(actions, act.CancelJob)) == 1
    assert not payer.send_bytes(frame_of(Cancel(CID, 1)))
    other = HandPayer(shop, 2)
    assert other.start(3)[0]


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_from_a_provider(name: str) -> None:
    """The asker is told that the provider is gone; what arrived stays due; next time it works."""
    data, code = GARBAGE[name]
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask(1))
    world.run(700 * NS_PER_MS)
    tamper(world, provider, Chunk, lambda _: data)
    world.run(5 * NS_PER_S)
    assert failure(requester) == "provider.vanished"
    assert codes_against(requester, provider) == [code]
    assert channels(requester)[0].due_ucr > 0
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert succeeded(requester, 2)
    assert same_totals(requester, provider)


@pytest.mark.parametrize("message", FROM_PAYEE, ids=lambda message: type(message).__name__)
def test_a_payer_that_sends_what_only_a_payee_may(message: object) -> None:
    """`session.protocol`."""
    payer = HandPayer(Shop())
    assert blamed(payer.send(message)) == ["session.protocol"]


def test_a_payee_that_sends_what_only_a_payer_may() -> None:
    """`session.protocol`."""
    world = make_world()
    provider, requester = world.peers
    tamper(world, provider, Chunk, lambda chunk: Cancel(chunk.cid, chunk.lane))
    world.give(requester, make_ask())
    world.run(5 * NS_PER_S)
    assert codes_against(requester, provider) == ["session.protocol"]


def test_bytes_of_a_stream_that_is_not_open_are_dropped() -> None:
    """What was on its way when we hung up is nobody's fault."""
    shop = Shop()
    session = SessionKey(stranger().public_key, outbound=False)
    assert not shop.give(act.SessionData(session, b"anything"))


def test_streams_are_bounded_and_the_last_provider_can_be_dialled_later() -> None:
    """Regression: over SESSIONS_MAX our own dial was hung up and never tried again."""
    world = make_world()
    provider, requester = world.peers
    strangers = [
        SessionKey(stranger(number % 256).public_key[:30] + number.to_bytes(2, "big"), False)
        for number in range(limits.SESSIONS_MAX)
    ]
    for session in strangers:
        requester.node.receive(act.SessionOpened(session), world.clock.now_ns)
    world.give(requester, make_ask(1))
    world.run(10 * NS_PER_S)
    assert failure(requester, 1) == "admission.full"
    assert SessionKey(key_of(provider), outbound=True) not in requester.node.sessions
    for session in strangers:
        closed = act.SessionClosed(session, "session.closed")
        requester.node.receive(closed, world.clock.now_ns)
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert succeeded(requester, 2)
