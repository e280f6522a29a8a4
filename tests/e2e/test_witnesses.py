"""Three witness daemons, a requester and a provider: deposits that are held by others.

Source: router/README.md, "Anchors".
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from peer.identity import load_key, peer_id
from tests.e2e.judging import answer_of, of
from tests.e2e.support import Daemon, Json, provider_flags, run, run_json, until

GRANT = 5_000_000


class Witnessed(NamedTuple):
    """All daemons, and how many of the witnesses must sign."""

    witnesses: list[Daemon]
    requester: Daemon
    provider: Daemon

    def free(self, of_whom: Daemon) -> list[int]:
        """What one has free at each witness, by the witnesses' own books."""
        found = []
        for witness in self.witnesses:
            accounts = witness.call("accounts")[0]["accounts"]
            mine = [one["free_ucr"] for one in accounts if one["peer"] == of_whom.peer_id]
            found.append(mine[0] if mine else 0)
            assert sum(one["free_ucr"] + one["locked_ucr"] for one in accounts) == GRANT
        return found

    def ask(self) -> list[Json]:
        """A job that the provider serves."""
        return self.requester.ask(max_tokens=24, providers_only=[self.provider.peer_id])


def _anchored(addresses: list[str]) -> dict[str, str]:
    return {
        "PEERD_ANCHOR_KIND": "witnesses",
        "PEERD_ANCHOR_WITNESSES": ",".join(addresses),
        "PEERD_ANCHOR_THRESHOLD": "2",
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witnessed]:
    """Everybody up and connected; the requester has funds with every witness."""
    Daemon.started.clear()
    home = tmp_path_factory.mktemp("witnessed")
    with ExitStack() as stack:
        witnesses = [Daemon(home / f"witness-{number}") for number in range(3)]
        requester, provider = Daemon(home / "requester"), Daemon(home / "provider")
        for daemon in (*witnesses, requester, provider):
            stack.callback(daemon.end)
        payer = peer_id(load_key(requester.directory).public_key)
        # A witness needs the others' keys, not their addresses: it never dials them.
        ids = [peer_id(load_key(one.directory).public_key) for one in witnesses]
        members = _anchored([f"/ip4/127.0.0.1/tcp/1/p2p/{one}" for one in ids])
        for witness in witnesses:
            with (witness.directory / "config.toml").open("a") as file:
                file.write(f'\n[witness.accounts]\n{payer} = "5"\n')
            witness.settings = {**members, "PEERD_WITNESS_SERVE": "true"}
            witness.launch()
        addresses = [witness.wait_ready().address for witness in witnesses]
        requester.settings = provider.settings = _anchored(addresses)
        requester.start()
        provider.flags = (*provider_flags(), "--bootstrap", requester.address)
        provider.start()
        until(lambda: requester.status()["topic_peers"] >= 1, "the two meet")
        yield Witnessed(witnesses, requester, provider)


def test_a_job_is_paid_and_the_provider_collects_alone(world: Witnessed) -> None:
    """The deposit is locked at all three; with the requester killed, the voucher is paid out."""
    payee = world.provider.peer_id
    data = ("--data", str(world.requester.directory))
    opened = run_json("channels", "open", payee, "--deposit", "1", *data)
    assert answer_of(world.ask())
    (channel,) = world.requester.channels()
    assert channel["channel"] == opened["channel"]
    until(
        lambda: world.free(world.requester) == [GRANT - channel["deposit_ucr"]] * 3,
        "every witness hears of the certificate",
    )

    def vouchers() -> int:
        (earning,) = world.provider.channels()
        total: int = earning["voucher_total_ucr"]
        return total

    until(lambda: vouchers() >= channel["due_ucr"] > 0, "the last voucher arrives")
    world.requester.kill()
    claimed = run_json("channels", "claim", "--data", str(world.provider.directory))
    assert [one["free_ucr"] for one in claimed["witnesses"]] == [vouchers()] * 3
    assert world.free(world.provider) == [vouchers()] * 3
    listed = run_json("witness", "--data", str(world.witnesses[0].directory))["accounts"]
    assert listed == world.witnesses[0].call("accounts")[0]["accounts"]


def test_after_a_restart_topped_up_and_closed_by_agreement(world: Witnessed) -> None:
    """The requester comes back, locks more, closes, and has at each witness what it did not
    spend."""
    if not world.requester.running:
        world.requester.flags = ("--bootstrap", world.provider.address)
        world.requester.start()
    until(lambda: world.requester.status()["topic_peers"] >= 1, "the two meet again")
    assert of(world.ask(), "done")
    named = world.requester.channels()[0]["channel"]
    raised = run_json(
        *("channels", "topup", named[:12], "0.5", "--data", str(world.requester.directory))
    )
    assert raised["deposit_ucr"] == 1_500_000 == world.requester.channels()[0]["deposit_ucr"]
    until(lambda: world.free(world.requester) == [GRANT - 1_500_000] * 3, "it is locked")
    shown = run("channels", "close", named[:12], "--data", str(world.requester.directory))
    assert shown.returncode == 0, shown.stderr
    assert "settled" in shown.stdout
    settled = world.requester.channels()[0]["settled_ucr"]
    assert settled > 0
    until(lambda: world.free(world.requester) == [GRANT - settled] * 3, "refunds")
    assert world.free(world.provider) == [settled] * 3


def test_the_provider_closes_alone(world: Witnessed) -> None:
    """`close --force` says what it will settle at and when; every witness waits for that."""
    assert of(world.ask(), "done")
    (earning,) = [one for one in world.provider.channels() if one["settled_ucr"] is None]
    data = ("--data", str(world.provider.directory))
    closing = run_json("channels", "close", earning["channel"], "--force", *data)
    assert closing["total_ucr"] >= earning["due_ucr"] > 0
    (still,) = [one for one in world.provider.channels() if one["settled_ucr"] is None]
    assert still["state"] == "challenge"
    before = world.free(world.provider)[0]
    until(lambda: world.free(world.provider) == [before] * 3, "the witnesses agree")
