"""Addresses: what a stranger may make us dial (they are hostile input)."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.libp2p_adapter.addresses import (
    expand_unspecified,
    machine_hosts,
    parse_address,
    parse_dialable,
    peer_id,
    public_key_of,
)
from protocol import limits
from protocol.crypto import Signer
from protocol.errors import NetworkError

KEY = Signer(b"\1" * 32).public_key
OTHER = Signer(b"\2" * 32).public_key


def test_a_peer_id_is_the_key_in_wrappers_and_back() -> None:
    # The id that go- and js-libp2p compute for this key (identity multihash, "12D3KooW...").
    assert str(peer_id(KEY)).startswith("12D3KooW")
    assert public_key_of(peer_id(KEY)) == KEY


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/0.0.0.0/tcp/0",
        "/ip6/::1/tcp/4001",
        "/dns/example.org/tcp/4001",
        "/dns4/example.org/tcp/4001",
        f"/ip4/10.0.0.1/tcp/1/p2p/{peer_id(KEY)}",
    ],
)
def test_configured_addresses_parse(text: str) -> None:
    address = parse_address(text)
    assert text.startswith(address.text)
    assert str(address.multiaddr) == address.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "127.0.0.1:4001",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/udp/4001",
        "/ip4/127.0.0.1/udp/4001/quic-v1",
        "/ip4/127.0.0.1/tcp/4001/ws",
        "/ip4/127.0.0.1/tcp/65536",
        "/ip4/127.0.0.1/tcp/-1",
        "/ip4/127.0.0.1/tcp/¹",
        "/ip4/1.2.3/tcp/1",
        "/ip4/::1/tcp/1",
        "/ip6/fe80::1%eth0/tcp/1",
        "/dnsaddr/example.org/tcp/1",
        "/dns/exa mple/tcp/1",
        "/dns/-/tcp/1",
        "/unix/run/x/tcp/1",
        f"/ip4/127.0.0.1/tcp/1/p2p/{peer_id(KEY)}/p2p-circuit",
        "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # RSA
        "/ip4/127.0.0.1/tcp/1/p2p/" + "1" * 60,
        "/ip4/127.0.0.1/tcp/1/p2p/" + "z" * 52,
    ],
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(NetworkError) as caught:
        parse_address(text)
    assert caught.value.code == "network.bad_address"
    assert "\n" not in str(caught.value)


def test_of_a_strangers_claims_only_what_may_reach_it_is_dialled() -> None:
    good = "/ip4/127.0.0.1/tcp/4001"
    claims = (
        "/ip4/0.0.0.0/tcp/4001",  # unspecified
        "/ip6/::/tcp/4001",
        "/ip4/224.0.0.1/tcp/4001",  # multicast
        "/ip4/127.0.0.1/tcp/0",
        f"{good}/p2p/{peer_id(OTHER)}",  # names another peer
        f"{good}/p2p/{peer_id(KEY)}",
        good,  # the same again
        "nonsense",
    )
    assert [a.text for a in parse_dialable(claims, KEY)] == [good]


def test_a_stranger_can_not_make_us_dial_many_addresses() -> None:
    claims = tuple(f"/ip4/127.0.0.1/tcp/{port}" for port in range(1, 1000))
    assert len(parse_dialable(claims, KEY)) == limits.ADDRESSES_MAX


@given(st.lists(st.text(max_size=300), max_size=20))
def test_hostile_text_never_raises(claims: list[str]) -> None:
    parse_dialable(tuple(claims), KEY)


@given(
    st.lists(
        st.sampled_from(["ip4", "ip6", "tcp", "p2p", "dns", "1.2.3.4", "::1", "80", "", "x"]),
        max_size=9,
    )
)
def test_what_parses_is_what_libp2p_understands(parts: list[str]) -> None:
    for address in parse_dialable(("/".join(["", *parts]),), KEY):
        assert str(address.multiaddr) == address.text


def test_an_unspecified_host_stands_for_the_machines_own() -> None:
    """0.0.0.0 must never be announced as it is: others would dial themselves."""
    hosts = ("203.0.113.7", "192.168.1.5", "2001:db8::7")
    assert expand_unspecified("/ip4/0.0.0.0/tcp/4101", hosts) == [
        "/ip4/203.0.113.7/tcp/4101",
        "/ip4/192.168.1.5/tcp/4101",
    ]
    assert expand_unspecified("/ip6/::/tcp/4101", hosts) == ["/ip6/2001:db8::7/tcp/4101"]
    plain = "/ip4/127.0.0.1/tcp/4101"
    assert expand_unspecified(plain, hosts) == [plain]


def test_the_machine_has_a_host_that_is_not_link_local() -> None:
    """Loopback is the last resort, and there is always one address to tell."""
    hosts = machine_hosts()
    assert hosts
    assert all(not ipaddress.ip_address(host).is_link_local for host in hosts)
    loopback = [ipaddress.ip_address(host).is_loopback for host in hosts]
    assert loopback == [True] or not any(loopback)
