"""A node that only asks is the person's own in all but its listener. Source: peer/asker.py."""

from pathlib import Path

from peer.asker import asker_settings
from peer.config import load_config
from peer.settings import daemon_settings


def test_its_caps_are_those_of_the_configuration(tmp_path: Path) -> None:
    """Regression: a client with a node of its own ignored `[requester] day_max`."""
    config = load_config(None, {"requester": {"day_max": "0.5"}})
    settings = asker_settings(tmp_path, config)
    assert settings.requester.day_max_ucr == 500_000
    assert settings.anchor == daemon_settings(tmp_path, config).anchor
    assert settings.network.listen == ("/ip4/127.0.0.1/tcp/0",)
