"""Addresses and peer ids: text from people and from strangers to what may be dialled.

Strict and pure: only `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT[/p2p/ID]`. An address that a peer
claims is hostile input; it is parsed here by hand, so that libp2p's parser only ever sees what
was rebuilt from checked parts. Must not dial. Rule: docs of the package.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

import ifaddr
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from protocol import limits
from protocol.errors import NetworkError

# A libp2p id of an ed25519 key is the key itself in two wrappers: identity multihash of 36
# bytes, then protobuf {type: Ed25519, data: 32 bytes}. Other key types are not nodes of ours.
_ID_PREFIX: Final = b"\x00\x24\x08\x01\x12\x20"
_DNS_NAMES: Final = ("dns", "dns4", "dns6")
_DNS_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_BASE58: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,60}")


def peer_id(public_key: bytes) -> ID:
    """The libp2p id of a node with this 32-byte ed25519 key."""
    assert len(public_key) == 32
    return ID(_ID_PREFIX + public_key)


def public_key_of(identity: ID) -> bytes:
    """The 32-byte ed25519 key in a libp2p id; b"" for ids of any other kind of key."""
    data: bytes = identity.to_bytes()
    if len(data) != len(_ID_PREFIX) + 32 or not data.startswith(_ID_PREFIX):
        return b""
    return data[len(_ID_PREFIX) :]


@dataclass(frozen=True, slots=True)
class Address:
    """A checked address; `peer` is the key named by its /p2p part, b"" without one."""

    kind: str
    host: str
    port: int
    peer: bytes

    @property
    def text(self) -> str:
        """`/KIND/HOST/tcp/PORT`, without the peer."""
        return f"/{self.kind}/{self.host}/tcp/{self.port}"

    @property
    def multiaddr(self) -> Multiaddr:
        """libp2p's own form, without the peer."""
        return Multiaddr(self.text)


def _check_host(kind: str, host: str) -> str:
    if kind in _DNS_NAMES:
        if not _DNS_HOST.fullmatch(host):
            raise ValueError("no host name")
        return host.lower()
    address = ipaddress.IPv4Address(host) if kind == "ip4" else ipaddress.IPv6Address(host)
    if "%" in host:
        raise ValueError("zones are local to a machine")
    return str(address)


def _parse(text: str) -> Address:
    if len(text) > limits.ADDRESS_CHARS_MAX:
        raise ValueError("too long")
    parts = text.split("/")
    if len(parts) not in (5, 7) or parts[0] or parts[3] != "tcp":
        raise ValueError("want /ip4|ip6|dns/HOST/tcp/PORT[/p2p/ID]")
    kind, host, port = parts[1], parts[2], parts[4]
    if kind not in ("ip4", "ip6", *_DNS_NAMES):
        raise ValueError(f"{kind!r} can't be dialled")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError("no port")
    peer = b""
    if len(parts) == 7:
        if parts[5] != "p2p" or not _BASE58.fullmatch(parts[6]):
            raise ValueError("no peer id")
        peer = public_key_of(ID.from_string(parts[6]))
        if not peer:
            raise ValueError("the peer id is not that of an ed25519 key")
    return Address(kind, _check_host(kind, host), int(port), peer)


def parse_address(text: str) -> Address:
    """A configured address, port 0 and the unspecified host allowed.

    NetworkError `network.bad_address`.
    """
    try:
        return _parse(text)
    except ValueError as error:
        raise NetworkError("network.bad_address", f"{text[:80]!r}: {error}") from error


def _dialable(address: Address) -> bool:
    if not address.port:
        return False
    if address.kind in _DNS_NAMES:
        return True
    host = ipaddress.ip_address(address.host)
    return not host.is_unspecified and not host.is_multicast


def parse_dialable(texts: tuple[str, ...], peer: bytes) -> list[Address]:
    """What of a stranger's claimed addresses may be dialled to reach `peer`.

    At most ADDRESSES_MAX, without duplicates; whatever is malformed, unspecified, or names
    another peer is left out silently: a lie about an address is its own punishment.
    """
    found: dict[str, Address] = {}
    for text in texts[: limits.ADDRESSES_MAX]:
        try:
            address = _parse(text)
        except ValueError:
            continue
        if _dialable(address) and address.peer in (b"", peer):
            found.setdefault(address.text, address)
    return list(found.values())


def machine_hosts() -> tuple[str, ...]:
    """This machine's own IP addresses, those that others can reach first; never link-local.

    Loopback counts only where there is nothing else: strangers would dial themselves.
    """
    found = [
        ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0])
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
    ]
    usable = [host for host in found if not host.is_link_local and not host.is_loopback]
    usable.sort(key=lambda host: (not host.is_global, host.version))
    return tuple(map(str, usable)) or ("127.0.0.1",)


def expand_unspecified(text: str, hosts: tuple[str, ...]) -> list[str]:
    """A listen address as others should know it: 0.0.0.0 and :: stand for all of `hosts`."""
    address = _parse(text)
    if address.kind in _DNS_NAMES or not ipaddress.ip_address(address.host).is_unspecified:
        return [text]
    version = 4 if address.kind == "ip4" else 6
    return [
        f"/{address.kind}/{host}/tcp/{address.port}"
        for host in hosts
        if ipaddress.ip_address(host).version == version
    ]
