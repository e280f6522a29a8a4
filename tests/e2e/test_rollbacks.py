"""A daemon whose data directory was restored from an older backup: seen, told, and repaired.

Source: protocol/README.md, "Heads" and "Re-establish". On virtual time, far harder:
tests/simnet/test_rollback_machine.py.
"""

import shutil

import pytest

from tests.e2e.judging import answer_of, shared_channels, verify
from tests.e2e.support import Daemon, Market, provider_flags, run, run_json, until


def put_back(daemon: Daemon, jobs: Market, provider: Daemon) -> None:
    """Copy the log of a stopped daemon, let it go on for two jobs, and restore the copy."""
    log, copy = daemon.directory / "log", daemon.directory / "log.backup"
    shutil.copytree(log, copy)
    daemon.start()
    jobs.wait_joined()
    for number in range(2):
        answer_of(jobs.requester.ask(seed=number + 2, providers_only=[provider.peer_id]))
    daemon.kill()
    shutil.rmtree(log)
    copy.rename(log)
    daemon.start()
    jobs.wait_joined()


@pytest.mark.parametrize("who", ["provider", "requester"])
def test_a_log_from_an_old_backup_is_noticed_and_loses_nothing(market: Market, who: str) -> None:
    """The other end shows what it holds; the next job is served, and both close at one sum."""
    requester, (provider,) = market.requester, market.sell(provider_flags())
    requester.flags = (*requester.flags, "--bootstrap", provider.address)
    only = [provider.peer_id]
    answer_of(requester.ask(providers_only=only))
    victim = {"provider": provider, "requester": requester}[who]
    victim.end()
    put_back(victim, market, provider)
    (restored,) = victim.channels()
    other = requester if victim is provider else provider
    (held,) = other.channels()
    assert restored["due_ucr"] < held["due_ucr"]

    answer_of(requester.ask(seed=9, providers_only=only))
    for text in ("log.rolled_back", "head.rolled_back"):
        until(lambda text=text: text in victim.log_path.read_text(), f"{who} says {text}")
    (settled,) = requester.call("close")
    (theirs,) = provider.channels()
    assert settled["settled_ucr"] == theirs["settled_ucr"] > held["due_ucr"]
    verify(requester)
    verify(provider)
    owing = (requester.peer_id, "--data", str(provider.directory))
    slip = run("credit", "paid", owing[0], "100", *owing[1:])
    assert slip.returncode == 1
    assert slip.stderr.startswith("peerd: credit.no_debt (")
    owed = f"{settled['settled_ucr'] / 1e6:.6f}"
    assert run_json("credit", "paid", owing[0], owed, *owing[1:])["owed_ucr"] == 0
    (ends,) = shared_channels(requester, provider)
    assert ends.payer.settled_ucr == ends.payee.settled_ucr
