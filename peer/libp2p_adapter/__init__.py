"""The only importer of libp2p."""

from peer.libp2p_adapter.network import Network, NetworkSettings
from peer.libp2p_adapter.session import Session

__all__ = ["Network", "NetworkSettings", "Session"]
