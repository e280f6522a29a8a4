"""An orderly stop: what is owed to connected payers is finished first, within the time given.

Source: README, `peerd run`; peer/daemon.py.
"""

from pathlib import Path

import pytest
import trio

from engine.scripted import Script, ScriptedEngine
from peer.daemon import DaemonSettings, open_daemon
from peer.libp2p_adapter.network import NetworkSettings
from protocol.channel import Channel, ChannelState, Role
from protocol.crypto import Signer
from protocol.fields import ChannelTerms
from protocol.lane import Lane

PATIENCE_S = 30
TERMS = ChannelTerms(window_ucr=5, deposit_max_ucr=100, lifetime_ns=10**15, challenge_ns=1)
FUTURE_NS = 2**62  # so that its lifetime does not end


def owing(payee: bytes, state: ChannelState, role: Role = Role.PAYEE) -> Channel:
    """A channel with a lane that has not ended."""
    lane = Lane(1, bytes(32), bytes(32), 15, 60, due_ucr=3)
    ends = (bytes(32), payee) if role is Role.PAYEE else (payee, bytes(32))
    return Channel(b"cid", role, *ends, TERMS, 100, FUTURE_NS, state=state, lanes={1: lane})


@pytest.mark.parametrize(
    ("state", "role", "waits"),
    [
        (ChannelState.READY, Role.PAYEE, True),
        (ChannelState.DETACHED, Role.PAYEE, False),
        (ChannelState.READY, Role.PAYER, False),
    ],
)
async def test_drain_waits_for_lanes_of_connected_payers(
    tmp_path: Path, state: ChannelState, role: Role, waits: bool
) -> None:
    """The engine is done before its text is paid, sent and receipted: that is waited for."""
    signer = Signer(bytes(32))
    settings = DaemonSettings(tmp_path, NetworkSettings("test"))
    engine = ScriptedEngine({"scripted": Script()})
    with trio.fail_after(PATIENCE_S):
        async with open_daemon(settings, signer, engine) as daemon:
            channel = owing(signer.public_key, state, role)
            daemon.ledger.channels[channel.cid] = channel
            assert await daemon.drain(0.2) is not waits
            channel.lanes.clear()
            assert await daemon.drain(PATIENCE_S)
