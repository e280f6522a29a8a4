"""The daemon's parts put together: what a failed start leaves behind."""

from pathlib import Path

import pytest

from peer.daemon import DaemonSettings, open_daemon
from peer.libp2p_adapter.network import NetworkSettings
from protocol.crypto import Signer
from protocol.errors import NetworkError


async def test_a_start_that_fails_leaves_the_directory_free(tmp_path: Path) -> None:
    """Regression: a bad address kept the log locked for as long as the process lived."""
    network = NetworkSettings("test", listen=("/ip4/nowhere/tcp/0",))
    settings = DaemonSettings(tmp_path, network)
    for _ in range(2):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with open_daemon(settings, Signer(bytes(32))):
                pass
        (error,) = caught.value.exceptions
        assert isinstance(error, NetworkError), error
        assert error.code == "network.bad_address"
