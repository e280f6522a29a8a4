"""The libp2p host: TCP, Noise, Yamux; every option given, nothing automatic.

Swarm and host are built by hand: `new_host` can't be told the retries, and accepts plaintext
beside Noise unless told otherwise. Must not know gossip or sessions.
"""

from collections import OrderedDict
from typing import Any

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.host.ping import ID as PING_PROTOCOL
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY_PROTOCOL
from libp2p.identity.identify.identify import identify_handler_for
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.transport.manager import TransportManager
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader

from peer.libp2p_adapter import addresses
from peer.libp2p_adapter.yamux import BoundedYamux
from protocol import crypto, limits
from protocol.units import NS_PER_S

DIAL_TIMEOUT_S = limits.DIAL_TIMEOUT_NS / NS_PER_S


class NodeSwarm(Swarm):  # type: ignore[misc]
    """Connections, without the leak of inbound slots and without dials of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # It aims at half the high watermark, whatever the low one says, and logs each round.
        self.auto_connector.maybe_connect = self._connect_nobody

    async def _connect_nobody(self) -> None:
        """Stands in for the auto-connector, which dials every address it ever heard of."""

    async def upgrade_inbound_raw_conn(self, raw_conn: Any, maddr: Any) -> Any:
        """Accept a connection, and hold its inbound slot only as long as it lives.

        Stock waits for the end of the swarm (swarm.py:2042, 2059), so that the cap counts all
        connections ever: after 250, nobody gets in, and each leaves a task behind.
        """
        muxed_conn = await super().upgrade_inbound_raw_conn(raw_conn, maddr)
        await muxed_conn.event_closed.wait()
        raise SwarmException("the inbound connection has ended")

    async def dial_peer(self, peer_id: Any) -> Any:
        """Never dial by itself: `Links` chooses the addresses.

        Stock dials one TCP address only, drops loopback ones when there are others, waits
        250 ms after success (swarm.py:936), and refuses a peer for 60 s after one failure.
        """
        raise SwarmException("not connected")


class NodeHost(BasicHost):  # type: ignore[misc]
    """The host, which answers identify but never asks.

    What peers claim about themselves in identify is not used here; asking costs a stream a
    connection, fills the peerstore, and runs in a system task, where an exception of the
    parser would end the process.
    """

    def _schedule_identify(self, peer_id: Any, *, reason: str) -> None:
        return


def _connection_config(connections_max: int) -> ConnectionConfig:
    return ConnectionConfig(
        max_connections=connections_max,
        min_connections=0,
        low_watermark=0,
        high_watermark=connections_max,
        max_peer_addrs_to_dial=limits.ADDRESSES_MAX,
        max_connections_per_peer=1,
        dial_timeout=DIAL_TIMEOUT_S,
        connection_close_timeout=1.0,
        inbound_upgrade_timeout=DIAL_TIMEOUT_S,
        outbound_upgrade_timeout=DIAL_TIMEOUT_S,
        outbound_stream_protocol_negotiation_timeout=DIAL_TIMEOUT_S,
        inbound_stream_protocol_negotiation_timeout=DIAL_TIMEOUT_S,
        connection_timeout=DIAL_TIMEOUT_S,
        load_balancing_strategy="best",
        auto_connect_interval=86_400.0,
        # Two nodes that dial each other at once must drop the same connection of the two;
        # `Links` decides that, so libp2p's own trimming is put off for ever.
        grace_period=86_400.0,
        allow_list=[],
        deny_list=[],
        # `BoundedYamux` pings instead, at a hundredth of the cost.
        enable_health_monitoring=False,
    )


def create_host(signer: crypto.Signer, connections_max: int) -> NodeHost:
    """A host that runs nothing yet; its identity is the signer's ed25519 key."""
    keys = create_new_key_pair(signer.seed)
    identity = addresses.peer_id(signer.public_key)
    peerstore = PeerStore(max_records=1, max_peers=limits.CONNECTIONS_MAX)
    peerstore.add_key_pair(identity, keys)
    # Noise alone: with stock's default an arbitrary id can be impersonated over plaintext.
    noise = NoiseTransport(keys, noise_privkey=create_new_x25519_key_pair().private_key)
    swarm = NodeSwarm(
        identity,
        peerstore,
        TransportUpgrader(
            secure_transports_by_protocol={NOISE_PROTOCOL: noise},
            muxer_transports_by_protocol={YAMUX_PROTOCOL: BoundedYamux},
            negotiate_timeout=int(DIAL_TIMEOUT_S),
        ),
        transports=[TCP(dns_resolution_timeout=2.0, dns_max_retries=1)],
        retry_config=RetryConfig(max_retries=0),
        connection_config=_connection_config(connections_max),
        psk=None,
        metric_send_channel=None,
        transport_manager=TransportManager(),
    )
    host = NodeHost(
        network=swarm,
        enable_mDNS=False,
        enable_upnp=False,
        bootstrap=None,
        default_protocols=OrderedDict({PING_PROTOCOL: _unused_handler}),
        negotiate_timeout=int(DIAL_TIMEOUT_S),
        # Its lifecycle tracker, circuit breaker and queueing semaphore turn one peer's
        # misbehaviour into everybody's refusal; the bounds here are per connection.
        resource_manager=None,
        metric_recv_channel=None,
        announce_addrs=None,
        addrs_factory=None,
        disable_identify_address_discovery=True,
    )
    # Identify is answered because js-libp2p expects it; identify/push is not: nobody's
    # unasked claims are stored.
    host.set_stream_handler(PING_PROTOCOL, PingService(host).handle_ping)
    host.set_stream_handler(IDENTIFY_PROTOCOL, identify_handler_for(host, use_varint_format=True))
    # The notifee that asks identify of each new connection.
    swarm.notifees = [
        notifee for notifee in swarm.notifees if type(notifee).__name__ != "_IdentifyNotifee"
    ]
    return host


async def _unused_handler(stream: Any) -> None:
    """Stands in until the real handlers, which need the host, can be made."""
