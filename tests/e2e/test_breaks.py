"""Askers that leave, readers that stop reading, disks that fill up: nobody pays for nothing.

Source: README, "What you trust, and what you don't".
"""

import signal
import subprocess

from tests.e2e.judging import answer_of, check_windows, of, shared_channels, verify
from tests.e2e.support import (
    LONG_PROMPT,
    PATIENCE_S,
    Market,
    command,
    environment,
    hear_interrupts,
    provider_flags,
    until,
)

SLOW = provider_flags(steps_per_s_max=10)


def test_interrupted_ask_stops_the_job(market: Market) -> None:
    """Ctrl-C ends `peerd ask` with 130 and no traceback; the provider stops, what came is due."""
    requester, (provider,) = market.requester, market.sell(SLOW)
    where = ("--data", str(requester.directory), "--only", provider.peer_id)
    asking = subprocess.Popen(
        command("ask", LONG_PROMPT, *where, "--max-tokens", "300", "--window-ms", "10000"),
        env=environment(),
        preexec_fn=hear_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asking.stdout is not None
    assert asking.stdout.read(1)
    asking.send_signal(signal.SIGINT)
    _, err = asking.communicate(timeout=PATIENCE_S)
    assert asking.returncode == 130
    assert "Traceback" not in err
    until(lambda: not provider.status()["running_jobs"], "the provider stops the job")
    until(lambda: not requester.status()["open_requests"], "the request is over")

    def lanes_ended() -> bool:
        listed = requester.channels() + provider.channels()
        return not any(channel["open_lanes"] for channel in listed)

    until(lanes_ended, "both ends close the lane")
    (ends,) = shared_channels(requester, provider)
    assert ends.payer.due_ucr == ends.payee.due_ucr > 0
    (settled,) = requester.call("close")
    assert settled["settled_ucr"] == ends.payee.due_ucr


def test_disk_that_is_full(market: Market) -> None:
    """The provider stops rather than promise what it can't write; with room it goes on."""
    requester = market.requester
    provider = market.add("provider-0", *provider_flags(), "--bootstrap", requester.address)
    provider.file_bytes_max = 6_000
    market.providers.append(provider.start())
    market.wait_joined()
    asked = 0
    while provider.running and asked < 20:
        events = requester.ask(
            max_tokens=8, providers_only=[provider.peer_id], bid_window_ms=2_000
        )
        asked += 1
        if not of(events, "done"):
            assert provider.wait_exit() == 1
    assert 1 < asked < 20
    assert provider.log_path.read_text().splitlines()[-1].startswith("peerd: storage.io ")
    verify(provider)
    verify(requester)
    for ends in shared_channels(requester, provider):
        check_windows(ends)

    provider.file_bytes_max = -1
    provider.start()
    market.wait_joined()
    answer_of(requester.ask(max_tokens=8, providers_only=[provider.peer_id]))
    settled = requester.call("close")
    theirs = {channel["channel"]: channel["settled_ucr"] for channel in provider.channels()}
    assert settled
    assert {one["channel"]: one["settled_ucr"] for one in settled} == theirs
