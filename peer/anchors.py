"""What stands behind deposits, from the settings: mutual credit or witnesses.

Rule: router/README.md, "Anchors".
"""

from peer.config import Config, credits_of
from peer.identity import public_key
from peer.libp2p_adapter.addresses import parse_address
from protocol.errors import ConfigError, NetworkError
from router.anchoring import AnchorSettings
from router.witness import Quorum

CREDIT, WITNESSES = "credit", "witnesses"


def anchor_settings(config: Config) -> AnchorSettings:
    """The node's anchor. ConfigError `config.bad_value`, `network.bad_address`."""
    limit = credits_of("credit_limit", config.provider.credit_limit)
    peers = amounts("credit.peers", config.credit.peers)
    if config.anchor.kind == CREDIT:
        if config.witness.serve:
            raise ConfigError("config.bad_value", "witness.serve: only with [anchor] witnesses")
        return AnchorSettings(limit, peers)
    addresses: dict[bytes, tuple[str, ...]] = {}
    for text in config.anchor.witnesses:
        try:
            address = parse_address(text)
        except NetworkError as error:
            raise ConfigError(error.code, error.detail) from error
        if not address.peer:
            raise ConfigError("network.bad_address", f"{text!r} does not end in /p2p/ID")
        key = address.peer
        addresses[key] = (*addresses.get(key, ()), text)
    members, threshold = tuple(addresses), config.anchor.threshold
    if not len(members) // 2 < threshold <= len(members):
        detail = (
            f"anchor.threshold: {threshold} of {len(members)} witnesses; more than half must sign,"
            " or two deposits could be signed by witnesses that don't know of each other"
        )
        raise ConfigError("config.bad_value", detail)
    return AnchorSettings(
        deposit_max_ucr=limit,
        quorum=Quorum(members, threshold),
        addresses=addresses,
        serves=config.witness.serve,
        grants=amounts("witness.accounts", config.witness.accounts),
    )


def amounts(name: str, table: dict[str, str]) -> dict[bytes, int]:
    """A table of credits by peer id, in ucr by key. ConfigError `config.bad_value`."""
    return {public_key(peer): credits_of(f"{name}.{peer}", table[peer]) for peer in table}
