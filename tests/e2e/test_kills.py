"""Processes killed at the worst time: errors are clear, both logs agree, all goes on.

Source: README, "What you trust, and what you don't", killed for real.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from peer.cli.audit import audit
from tests.e2e.judging import (
    CHUNK_UCR,
    answer_of,
    check_windows,
    gone,
    ledger_of,
    of,
    shared_channels,
    verify,
    workers_of,
)
from tests.e2e.support import (
    LONG_PROMPT,
    NETWORK,
    PATIENCE_S,
    Daemon,
    Json,
    Market,
    command,
    environment,
    provider_flags,
    until,
)

SLOW = provider_flags(steps_per_s_max=10)
BRISK = provider_flags(steps_per_s_max=30)
LONG = [["user", LONG_PROMPT]]
FAST = provider_flags()


def begin_ask(requester: Daemon, provider: Daemon) -> subprocess.Popen[str]:
    """`peerd ask` of one provider through a daemon, in the background, for a long answer."""
    where = ("--data", str(requester.directory), "--only", provider.peer_id)
    limits = ("--max-tokens", "200", "--timeout", "50", "--window-ms", "10000")
    return subprocess.Popen(
        command("ask", LONG_PROMPT, "--json", *where, *limits),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask_long(requester: Daemon, provider: Daemon, max_tokens: int) -> Iterator[Json]:
    """The events of a request of one provider, alone, whose answer takes a while."""
    only = [provider.peer_id]
    return requester.ask_stream(
        messages=LONG, max_tokens=max_tokens, providers_only=only, fallbacks=False
    )


def wait_delivered(requester: Daemon) -> None:
    """Until more was delivered on the requester's one channel than a window may hide."""
    hidden_ucr = 3 * CHUNK_UCR
    until(lambda: any(item["due_ucr"] > hidden_ucr for item in requester.channels()), "much text")


def test_provider_killed_in_mid_stream(market: Market) -> None:
    """The asker is told, no end loses more than its window, and the channel goes on."""
    requester, (provider,) = market.requester, market.sell(BRISK)
    asking = begin_ask(requester, provider)
    wait_delivered(requester)
    (worker,) = workers_of(provider)
    provider.kill()
    out, err = asking.communicate(timeout=PATIENCE_S)

    assert asking.returncode == 1
    assert err.startswith("peerd: provider.vanished")
    assert err.count("\n") == 1
    result = json.loads(out)
    assert result["error"]["code"] == "provider.vanished"
    assert result["answer"]
    (channel,) = requester.channels()
    assert result["error"]["paid_ucr"] == channel["due_ucr"] > 0
    verify(requester)
    verify(provider)
    (ends,) = shared_channels(requester, provider)
    check_windows(ends)
    until(lambda: gone(worker), "the engine's process ends with its daemon")

    provider.start()
    market.wait_joined()
    events = requester.ask(max_tokens=8, providers_only=[provider.peer_id])
    answer_of(events)
    (award,) = of(events, "award")
    assert award["channel"] == channel["channel"]
    assert not award["opened_channel"]
    (settled,) = requester.call("close")
    (theirs,) = provider.channels()
    assert settled["settled_ucr"] == theirs["settled_ucr"] > channel["due_ucr"]
    assert settled["refund_ucr"] == theirs["deposit_ucr"] - theirs["settled_ucr"]
    findings = audit([requester.directory, provider.directory], NETWORK)
    assert findings == {"logs_ok": True, "receipts_ok": True, "conserved": True}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_winner_lost_before_its_first_chunk(market: Market, number: signal.Signals) -> None:
    """The next bid is tried, and the answer arrives; a winner that wakes later can serve."""
    requester = market.requester
    winner, second = market.sell(provider_flags(output_price="20"), FAST)
    events: list[Json] = []
    for event in requester.ask_stream(bid_window_ms=3_000):
        events.append(event)
        if event["event"] == "bid" and event["provider"] == winner.peer_id:
            winner.signal(number)
    assert answer_of(events)
    (retry,) = of(events, "retry")
    assert retry["provider"] == winner.peer_id
    assert of(events, "award")[-1]["provider"] == second.peer_id
    assert of(events, "done")[0]["receipt"]["payee"] == second.peer_id
    if number is signal.SIGSTOP:
        winner.signal(signal.SIGCONT)
        until(lambda: not winner.status()["running_jobs"], "the late winner has no job")
        market.wait_joined()
        again = requester.ask(providers_only=[winner.peer_id])
        assert answer_of(again) == answer_of(events)
        for ends in shared_channels(requester, winner):
            check_windows(ends)
    for ends in shared_channels(requester, second):
        check_windows(ends)


def test_requester_killed_in_mid_stream(market: Market) -> None:
    """The provider stops the job; the requester comes back and asks on the same channel."""
    requester, (provider,) = market.requester, market.sell(BRISK)
    asking = begin_ask(requester, provider)
    wait_delivered(requester)
    requester.kill()
    _, err = asking.communicate(timeout=PATIENCE_S)
    assert asking.returncode == 1
    assert err.startswith("peerd: control.unavailable")
    assert err.count("\n") == 1
    until(lambda: not provider.status()["running_jobs"], "the provider stops the job")
    verify(provider)
    verify(requester)
    (ends,) = shared_channels(requester, provider)
    check_windows(ends)

    requester.flags = (*requester.flags, "--bootstrap", provider.address)
    requester.start()
    market.wait_joined()
    events = requester.ask(max_tokens=8, providers_only=[provider.peer_id])
    answer_of(events)
    assert [award["channel"] for award in of(events, "award")] == [ends.payer.cid.hex()]
    (settled,) = requester.call("close")
    assert settled["settled_ucr"] == provider.channels()[0]["settled_ucr"]


def test_first_sigterm_drains(market: Market) -> None:
    """The job that runs is finished and receipted, new requests get no bid, exit status 0."""
    requester, (provider,) = market.requester, market.sell(SLOW, PEERD_DRAIN_S="50")
    events: list[Json] = []
    for event in ask_long(requester, provider, 30):
        if event["event"] == "text" and not of(events, "text"):
            provider.signal(signal.SIGTERM)
            until(lambda: "daemon.stopping" in provider.log_path.read_text(), "it drains")
            (*_, refused) = requester.ask(bid_window_ms=1_000)
            assert refused["code"] == "request.no_bids"
        events.append(event)
    assert answer_of(events)
    assert provider.wait_exit() == 0
    assert not (provider.directory / "control.sock").exists()
    assert verify(provider)["state"] == "clean"
    (ends,) = shared_channels(requester, provider)
    assert ends.payer.due_ucr == ends.payee.due_ucr == of(events, "done")[0]["receipt"]["cost_ucr"]
    assert not ends.payee.lanes
    assert ledger_of(provider).receipts == 1


def test_second_signal_stops_at_once(market: Market) -> None:
    """A job that has long to go is given up; the asker is told, the log is whole."""
    requester, (provider,) = market.requester, market.sell(SLOW, PEERD_DRAIN_S="50")
    events: list[Json] = []
    for event in ask_long(requester, provider, 300):
        if event["event"] == "text" and not of(events, "text"):
            provider.signal(signal.SIGTERM)
            until(lambda: "daemon.stopping" in provider.log_path.read_text(), "it drains")
            provider.signal(signal.SIGINT)
        events.append(event)
    assert events[-1]["code"] == "provider.vanished"
    assert provider.wait_exit() == 0
    assert verify(provider)["state"] == "clean"
    (ends,) = shared_channels(requester, provider)
    check_windows(ends)


def test_engine_worker_killed_in_mid_stream(market: Market) -> None:
    """The asker is told, the daemon lives, and the next question is answered."""
    requester, (provider,) = market.requester, market.sell(SLOW)
    (worker,) = workers_of(provider)
    events: list[Json] = []
    for event in ask_long(requester, provider, 200):
        if event["event"] == "text" and not of(events, "text"):
            os.kill(worker, signal.SIGKILL)
        events.append(event)
    assert events[-1]["event"] == "failed"
    assert events[-1]["code"] == "engine.crashed"
    assert events[-1]["paid_ucr"] == requester.channels()[0]["due_ucr"] > 0
    assert provider.running
    offered = '{"models": ["embedded"], "event": "offers.changed"'
    until(lambda: provider.log_path.read_text().count(offered) == 2, "the model is sold again")
    assert len(workers_of(provider)) == 1
    answer_of(requester.ask(max_tokens=8, providers_only=[provider.peer_id]))
    (ends,) = shared_channels(requester, provider)
    assert ends.payer.due_ucr == ends.payee.due_ucr
