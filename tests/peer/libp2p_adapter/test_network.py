"""The network's surface between two or three real nodes: gossip, identity, penalties, life."""

import random
import time

import pytest
import trio
from libp2p import new_host
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from multiaddr import Multiaddr

from peer.libp2p_adapter import Network, NetworkSettings
from peer.libp2p_adapter.addresses import parse_address, peer_id
from protocol import limits
from protocol.crypto import Signer
from protocol.errors import LocalError, NetworkError


def plain(node) -> str:
    """A node's first address without /p2p/ID."""
    return node.network.addresses[0].rsplit("/p2p/", 1)[0]


async def test_gossip_reaches_the_other_node_once_each_way(start, join) -> None:
    one, other = await start(1), await start(2)
    await join(one, other)
    await one.network.publish(b"ping")
    await other.network.publish(b"pong")
    await one.until(lambda: b"pong" in one.messages)
    await other.until(lambda: b"ping" in other.messages)
    assert sorted(one.heard) == [(b"ping", b""), (b"pong", other.key)]
    assert sorted(other.heard) == [(b"ping", one.key), (b"pong", b"")]


async def test_what_the_application_refuses_is_not_passed_on(start, join) -> None:
    one, middle, far = await start(1), await start(2), await start(3)
    await join(one, middle)
    with trio.fail_after(10):
        await middle.network.dial(far.key, far.network.addresses)
        await middle.network.wait_topic_peers(2)
        await far.network.wait_topic_peers(1)
    middle.accept = lambda data, forwarder: data != b"bad"
    await one.network.publish(b"bad")
    await one.network.publish(b"good")
    await far.until(lambda: b"good" in far.messages)
    assert far.messages == [b"good"]
    assert middle.messages == [b"bad", b"good"]


async def test_what_the_application_refuses_of_our_own_is_not_sent(start, join) -> None:
    one, other = await start(1), await start(2)
    await join(one, other)
    one.accept = lambda data, forwarder: data != b"bad"
    await one.network.publish(b"bad")
    await one.network.publish(b"good")
    await other.until(lambda: bool(other.messages))
    assert other.messages == [b"good"]


async def test_publishing_states_its_bounds(start, join) -> None:
    one = await start(1)
    with pytest.raises(NetworkError, match=r"network\.unreachable"):
        await one.network.publish(b"nobody hears")
    for data in (b"", b"x" * (limits.GOSSIP_BYTES_MAX + 1)):
        with pytest.raises(LocalError):
            await one.network.publish(data)
    other = await start(2)
    await join(one, other)
    await one.network.publish(b"x" * limits.GOSSIP_BYTES_MAX)
    await other.until(lambda: bool(other.messages))


async def test_a_burst_arrives_whole(start, join) -> None:
    # Stock libp2p: with stock's queues of 32, a burst of 100 delivers 32.
    one, other = await start(1), await start(2)
    await join(one, other)
    for number in range(1000):
        await one.network.publish(b"%d" % number)
    await other.until(lambda: len(other.messages) == 1000)
    assert other.messages == [b"%d" % number for number in range(1000)]


async def test_the_identity_is_the_signing_key(start) -> None:
    one = await start(1)
    assert one.key == Signer((1).to_bytes(32, "big")).public_key
    assert one.network.peer_id == str(peer_id(one.key))
    assert one.network.addresses[0].endswith(f"/p2p/{one.network.peer_id}")


async def test_an_address_with_a_wrong_id_does_not_connect(start) -> None:
    one, other, third = await start(1), await start(2), await start(3)
    with trio.fail_after(10), pytest.raises(NetworkError) as caught:
        await one.network.dial(third.key, (plain(other),))
    assert caught.value.code == "network.unreachable"
    assert one.peer_events == []
    assert not one.network.peers


async def test_plaintext_is_refused(start, join, nursery) -> None:
    # Stock libp2p accepts plaintext, and with it whatever id the dialler claims.
    victim, fresh = await start(1), await start(2)
    stock = new_host()
    keys = stock.get_peerstore().privkey(stock.get_id())
    pair = type("Pair", (), {"private_key": keys, "public_key": keys.get_public_key()})()
    plaintext = new_host(sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)})
    async with plaintext.run(listen_addrs=[]):
        info = PeerInfo(peer_id(victim.key), [Multiaddr(plain(victim))])
        with trio.fail_after(15), pytest.raises(Exception, match=r"unable to connect|fail"):
            await plaintext.connect(info)
    await join(fresh, victim)
    assert victim.network.peers == (fresh.key,)


async def test_a_node_of_another_network_is_let_go(start, join, monkeypatch) -> None:
    monkeypatch.setattr("peer.libp2p_adapter.exchange._SUBSCRIBE_TIMEOUT_S", 0.2)
    one, friend = await start(1), await start(2)
    foreigner = await start(3, network="elsewhere")
    await join(one, friend)
    with trio.fail_after(10):
        await foreigner.network.dial(one.key, one.network.addresses)
        await one.until(lambda: (foreigner.key, False) in one.peer_events)
    assert one.network.topic_peers() == 1
    with trio.fail_after(10), pytest.raises(NetworkError):
        await one.network.open_session(foreigner.key, foreigner.network.addresses)
    await one.network.publish(b"ours")
    await friend.until(lambda: friend.messages == [b"ours"])
    assert not foreigner.messages


async def test_a_penalised_peer_is_disconnected_and_refused(start, join) -> None:
    one, other = await start(1), await start(2)
    await join(one, other)
    one.network.penalize(other.key, 3600 * 10**9)
    await one.until(lambda: (other.key, False) in one.peer_events)
    await other.until(lambda: (one.key, False) in other.peer_events)
    with pytest.raises(NetworkError):
        await one.network.dial(other.key, other.network.addresses)
    with trio.fail_after(10):
        await other.network.dial(one.key, one.network.addresses)  # accepted, then closed
        await other.until(lambda: other.peer_events.count((one.key, False)) == 2)
    assert not one.network.peers


async def test_a_penalty_ends(start, join) -> None:
    one, other = await start(1), await start(2)
    await join(one, other)
    one.network.penalize(other.key, 1)
    await one.until(lambda: (other.key, False) in one.peer_events)
    await join(one, other)


async def test_two_nodes_that_dial_each_other_at_once_keep_one_connection(start) -> None:
    # Each may keep what the other closes, if each decides by itself.
    for turn in range(5):
        one, other = await start(10 + turn), await start(20 + turn)
        with trio.fail_after(10):
            async with trio.open_nursery() as both:
                both.start_soon(one.network.dial, other.key, other.network.addresses)
                both.start_soon(other.network.dial, one.key, one.network.addresses)
            while len(one.network._host.get_network().get_connections()) > 1:  # noqa: ASYNC110
                await trio.sleep(0.01)
            await one.network.wait_topic_peers(1)
            await other.network.wait_topic_peers(1)
            await one.network.publish(b"hello")
            await other.until(lambda node=other: node.messages == [b"hello"])
        assert one.peer_events == [(other.key, True)]


async def test_a_busy_port_is_one_line(start) -> None:
    # Stock shares the port silently (SO_REUSEPORT), and each node gets half of the dials.
    one = await start(1)
    with trio.fail_after(10), pytest.raises(NetworkError) as caught:
        await start(2, listen=(plain(one),))
    assert caught.value.code == "network.listen"
    assert plain(one) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_the_port_is_free_after_a_stop(start) -> None:
    one = await start(1)
    await one.stop()
    again = await start(1, listen=(one.last_address,))
    assert plain(again) == one.last_address


async def test_announced_addresses_replace_those_listened_on(start) -> None:
    one = await start(1, announce=("/ip4/203.0.113.7/tcp/4001",))
    assert one.network.addresses == (f"/ip4/203.0.113.7/tcp/4001/p2p/{one.network.peer_id}",)


async def test_the_unspecified_address_is_announced_as_the_machines_own(
    start, monkeypatch
) -> None:
    # Stock announces 0.0.0.0 literally.
    hosts = ("192.0.2.7", "127.0.0.1")
    monkeypatch.setattr("peer.libp2p_adapter.network.machine_hosts", lambda: hosts)
    one = await start(1, listen=("/ip4/0.0.0.0/tcp/0",))
    addresses = [parse_address(text) for text in one.network.addresses]
    assert {address.host for address in addresses} <= set(hosts)
    assert addresses
    assert all(address.peer == one.key for address in addresses)


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": ("127.0.0.1:4001",)},
        {"announce": ("/ip4/1.2.3.4/udp/1",)},
        {"bootstrap": ("/ip4/127.0.0.1/tcp/4001",)},  # without /p2p/ID
    ],
)
async def test_bad_settings_are_refused_before_anything_runs(settings) -> None:
    with pytest.raises(NetworkError, match=r"network\.bad_address"):
        Network(
            NetworkSettings(network="test", **settings),
            Signer(b"\1" * 32),
            validate=lambda data, forwarder: True,
            on_session=lambda session: None,
            on_bid=lambda peer, data: None,
            on_peer=lambda peer, connected: None,
            now_ns=time.time_ns,
            rng=random.Random(1),
        )


async def test_an_error_of_a_callback_ends_the_network_with_it(start, join) -> None:
    # A StorageError in the daemon must not vanish among strangers' errors.
    one, other = await start(1), await start(2)
    await join(one, other)

    def broken(data: bytes, forwarder: bytes) -> bool:
        raise KeyError("a bug of ours")

    one.accept = broken
    one.swallow = KeyError
    await other.network.publish(b"hello")
    with trio.fail_after(10):
        await one.ended.wait()
    assert isinstance(one.error, KeyError)


async def test_nodes_stop_quickly(start, join) -> None:
    one, others = await start(1), [await start(seed) for seed in range(2, 6)]
    for other in others:
        await join(other, one)
    before = trio.current_time()
    await one.stop()
    assert trio.current_time() - before < 3
    for other in others:
        await other.until(lambda node=other: (one.key, False) in node.peer_events)


async def test_a_newcomer_gets_what_stands_once(start, join) -> None:
    """Though nobody says it now; coming and going on the topic does not get it again."""
    old, new = await start(1, standing=[b"stands", b"stands too"]), await start(2)
    await join(new, old)
    await new.until(lambda: set(new.messages) == {b"stands", b"stands too"})
    assert {forwarder for _, forwarder in new.heard} == {old.key}
    pubsub, router = old.network._pubsub, old.network._router
    sent = []
    router._push = lambda peer, rpc: sent.append(rpc)
    (peer,) = pubsub.peers
    pubsub._replayed_recent_topics.clear()
    await router.send_recent_messages(peer, old.network._topic)
    assert not sent
