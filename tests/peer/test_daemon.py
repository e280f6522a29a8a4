"""The daemon's parts put together: what a failed start leaves behind."""

from pathlib import Path

import pytest
import trio
import trio.testing

from peer.daemon import DaemonSettings, open_daemon
from peer.libp2p_adapter.network import NetworkSettings
from protocol.crypto import Signer
from protocol.errors import NetworkError
from router import events
from router.actions import Deliver
from tests.router.support import make_ask


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


async def test_an_asker_that_leaves_while_text_comes_does_not_stop_the_daemon(
    tmp_path: Path,
) -> None:
    """Regression: an event that came in the moment of leaving ended the whole daemon."""
    network = NetworkSettings("test", listen=("/ip4/127.0.0.1/tcp/0",))
    settings = DaemonSettings(tmp_path, network)
    async with open_daemon(settings, Signer(bytes(32))) as daemon, trio.open_nursery() as nursery:
        ask = make_ask(daemon.new_ask_id())

        async def more() -> None:
            daemon.perform(Deliver(ask.ask_id, events.Text("late", 1, 1, 1)))

        async with daemon.ask(ask):
            nursery.start_soon(more)
        await trio.testing.wait_all_tasks_blocked()
        assert daemon.node.requester.open_jobs == 0
