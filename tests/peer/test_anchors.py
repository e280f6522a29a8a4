"""Whom to believe, from the settings: limits, witnesses, thresholds; wrong ones are refused."""

import pytest

from peer.anchors import anchor_settings
from peer.config import Config, load_config
from peer.identity import peer_id
from protocol.errors import ConfigError

IDS = [peer_id(bytes([number]) * 32) for number in range(1, 5)]
ADDRESSES = [f"/ip4/127.0.0.1/tcp/{4000 + number}/p2p/{one}" for number, one in enumerate(IDS)]


def config(**sections: object) -> Config:
    return load_config(None, sections, {})


def test_limits_of_known_peers_are_in_ucr() -> None:
    """Everybody else has the provider's limit."""
    settings = anchor_settings(config(credit={"peers": {IDS[0]: "0.25"}}))
    assert settings.limits_ucr == {bytes([1]) * 32: 250_000}
    assert settings.deposit_max_ucr == 10_000_000
    assert settings.quorum is None


def test_witnesses_are_taken_from_their_addresses() -> None:
    """Two addresses of one peer are one witness."""
    two = "/ip4/10.0.0.1/tcp/1/p2p/" + IDS[0]
    anchor = {"kind": "witnesses", "witnesses": [*ADDRESSES[:3], two], "threshold": 2}
    accounts = {IDS[3]: "7"}
    settings = anchor_settings(
        config(anchor=anchor, witness={"serve": True, "accounts": accounts})
    )
    assert settings.quorum is not None
    assert len(settings.quorum.members) == 3
    assert settings.addresses[bytes([1]) * 32] == (ADDRESSES[0], two)
    assert settings.serves
    assert settings.grants == {bytes([4]) * 32: 7_000_000}


@pytest.mark.parametrize("threshold", [0, 1, 2, 5])
def test_a_threshold_of_half_or_less_is_refused(threshold: int) -> None:
    """Two sets of signers could then have no witness in common; nor can more than all sign."""
    anchor = {"kind": "witnesses", "witnesses": ADDRESSES, "threshold": threshold}
    with pytest.raises(ConfigError, match=r"config\.bad_value.*more than half"):
        anchor_settings(config(anchor=anchor))


@pytest.mark.parametrize(
    "sections",
    [
        {"anchor": {"kind": "witnesses", "witnesses": ["/ip4/1.2.3.4/tcp/1"], "threshold": 1}},
        {"anchor": {"kind": "witnesses", "witnesses": ["nowhere"], "threshold": 1}},
        {"anchor": {"kind": "faith"}},
        {"credit": {"peers": {"somebody": "1"}}},
        {"credit": {"peers": {IDS[0]: "lots"}}},
        {"witness": {"serve": True}},
    ],
)
def test_wrong_settings_are_refused(sections: dict[str, object]) -> None:
    """Named, before anything starts."""
    with pytest.raises(ConfigError):
        anchor_settings(config(**sections))
