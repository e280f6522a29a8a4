"""The only importer of libp2p: gossip, sessions, bids and peers over py-libp2p 0.8.1, hardened.

Below F4 nothing knows that libp2p exists. libp2p as it comes ends on one hostile packet; what
is done about that, and where. A later release retires a line when its test (in
tests/peer/libp2p_adapter) passes without it.

Survival
- Tasks and stream handlers that raise end alone, not the host: `hardening._contain_tasks`,
  `_contain_streams`. A gossip stream that can't be parsed is reset: `pubsub`.
- An inbound slot is given back when its connection ends, not never: `host.NodeSwarm`.
- Pubsub and router run before the host listens: `network.Network._run_shielded`, which also
  keeps cancellation from leaving sockets listening; `links.Links.close_all` closes listeners.
- A frame that was begun is finished, whoever is cancelled: `yamux.BoundedYamux._write_frame`;
  sessions write in a task of their own: `session.Session.run`.
- A stream that ends wakes who reads it: `yamux.BoundedYamux._finalize_stream_locked`.
- Noise alone, no plaintext; identify is answered, never asked, and pushes are ignored: `host`.
- A busy port is an error, not shared (SO_REUSEPORT): `hardening._refuse_busy_ports`.
- libp2p's logging is off, and kept from the root logger: `hardening._quiet_logging`.

Bounds
- Unread bytes a stream and connection, streams a connection, frame size: `yamux`. The window
  stays at 256 KB. No `read_exactly` for bodies: sessions deal in pieces.
- RPC size, ids an RPC, topics, back-off, cache, seen ids, sessions a peer: `router`, `pubsub`,
  `streams`. Numbers: protocol/limits.py.
- Addresses that strangers claim: `addresses`. Peers that are gone leave nothing: `links`.

Delivery
- Outbound queues of 1,024 RPCs, not 32; no subscription channel at all, as messages go to
  `validate` before they are forwarded: `hardening._enlarge_queues`, `pubsub`.
- Heartbeat 1 s; adaptive gossip, spam limit, scoring and mesh diversity off; offers reach
  peers in back-off; our own messages go beyond the mesh: `router`.
- Message ids are sha256 of the data, in the cache too; messages carry data and topic alone
  (StrictNoSign), as the application's envelope is the signature: `router`, `pubsub`.
- A peer that reconnects gets a new gossip stream, and keeps its subscription: `pubsub`.
- Dead peers are noticed by pings of the multiplexer: `yamux`. One connection a peer, the same
  on both sides; dials are ours, so that no failed dial blocks a peer for 60 s and no success
  waits 250 ms; no auto-connector: `links`, `host`.
- Nodes that met one bootstrap node meet each other: `exchange`, `router.peering`.

Speed: /meshsub/1.1.0 alone, windows given back by halves, buffered reads, RPCs serialized once
and written several at a time, no address record in each RPC: tests/bench/gossip.py. No locks
and no task switch to read or write a frame that need not wait: `noise`, `yamux`, `yamux_stream`.
"""

from peer.libp2p_adapter.network import Network, NetworkSettings
from peer.libp2p_adapter.session import Session

__all__ = ["Network", "NetworkSettings", "Session"]
