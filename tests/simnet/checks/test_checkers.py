"""Each rule is seen to break when a core breaks it, at once, and the way there can be replayed.

Source: simnet/README.md, "Checks"; router/README.md, "Money".
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Voucher
from protocol.records import VoucherAccepted
from router.actions import Action, Append, StartJob
from router.context import Context
from router.payee import Payee
from router.payer import Payer
from simnet.driver import Driver
from simnet.peer import Peer
from simnet.scenario import file as scenario_file
from tests.simnet.cli.test_cli import TINY, simnet
from tests.simnet.test_simulation import scenario, summary_of

Break = Callable[[pytest.MonkeyPatch], None]


def send_before_sync(patch: pytest.MonkeyPatch) -> None:
    """What waits for a record leaves at once."""

    def take(self: Driver, peer: Peer, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Append):
                peer.log.append((action.type, action.payload))
            else:
                self._perform(peer, action)
        self._flush(peer)
        self._arm(peer)
        if self.after_step is not None:
            self.after_step(peer, actions)

    patch.setattr(Driver, "_take", take)


def no_window(patch: pytest.MonkeyPatch) -> None:
    """The payee sends whatever it has."""
    patch.setattr(Payee, "send_limit_ucr", lambda self, channel: channel.deposit_ucr)
    # Nobody pays: the window is all that there is.
    patch.setattr(Payer, "issue", lambda *arguments, **options: None)


def lazy_reserve(patch: pytest.MonkeyPatch) -> None:
    """Chunks leave without a reservation."""
    patch.setattr(Payee, "reserve", lambda *arguments, **options: True)


def ledger_beside_the_log(patch: pytest.MonkeyPatch) -> None:
    """A voucher counts as taken for more than its record says."""
    keep = Payee.keep_voucher

    def keep_more(self: Payee, channel: Any, voucher: Voucher) -> None:
        keep(self, channel, voucher)
        channel.total_ucr += 1

    patch.setattr(Payee, "keep_voucher", keep_more)


def lower_total(patch: pytest.MonkeyPatch) -> None:
    """The payee takes a voucher again."""
    keep = Payee.keep_voucher

    def keep_twice(self: Payee, channel: Any, voucher: Voucher) -> None:
        keep(self, channel, voucher)
        self._context.append(VoucherAccepted(voucher))

    patch.setattr(Payee, "keep_voucher", keep_twice)


def run_twice(patch: pytest.MonkeyPatch) -> None:
    """An award starts two executions."""
    act = Context.act

    def act_twice(self: Context, action: Action) -> None:
        act(self, action)
        if isinstance(action, StartJob):
            act(self, replace(action))

    patch.setattr(Context, "act", act_twice)


BROKEN: dict[str, Break] = {
    "I2 signed <= payer-durable total": send_before_sync,
    "I3 sent - payee-durable total <= W": no_window,
    "a chunk leaves behind its durable reservation": lazy_reserve,
    "a log replays to its state": ledger_beside_the_log,
    "I5 accepted totals strictly rise": lower_total,
    "one execution an award": run_twice,
}


@pytest.mark.parametrize("rule", list(BROKEN))
def test_a_broken_rule_stops_the_run_and_is_named(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the step in which it breaks."""
    assert summary_of(scenario())["faults"] == []
    BROKEN[rule](monkeypatch)
    told = summary_of(scenario())
    assert not told["checks_ok"]
    assert told["failure"]["rule"] == rule
    assert told["faults"] == [f"{rule}: {told['failure']['detail']}"]
    assert told["stopped_by"] == "check"


def test_checks_change_nothing() -> None:
    """They look on: the trace is that of a run without them."""
    assert summary_of(scenario())["trace_hash"] == unchecked()["trace_hash"]


def unchecked() -> dict[str, Any]:
    """The summary of a run without checks."""
    from simnet.runs.runner import Run

    return Run(scenario(), 1, Path(), check="off").go()


def test_a_failure_is_replayed_to_just_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that a failed run names shows the last steps, the next one and the channels."""
    file, out = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_text(TINY)
    lower_total(monkeypatch)
    status, told, _ = simnet("run", str(file), "--out", str(out), "--no-tables", "-q")
    assert status == 1
    assert f"simnet replay {out}" in told
    assert "seed 1, commit" in told
    status, told, _ = simnet("replay", str(out))
    assert status == 0
    failure = json.loads((out / "summary.json").read_text())["failure"]
    lines = told.splitlines()
    following = next(line for line in lines if line.lstrip().startswith("next"))
    assert f"{failure['at_ns'] / 1e9:.6f} s  node {failure['node']}" in following
    assert lines[-1] == f"then: {failure['rule']}: {failure['detail']}"
    assert any("channel" in line and "deposit" in line for line in lines)


def test_a_replay_of_nothing_is_wrong_input(tmp_path: Path) -> None:
    """No run, or one in which nothing failed."""
    status, _, told = simnet("replay", str(tmp_path))
    assert (status, "holds no run" in told) == (2, True)
    file, out = tmp_path / "tiny.toml", tmp_path / "run"
    file.write_text(TINY)
    simnet("run", str(file), "--out", str(out), "--no-tables", "-q", "--check", "end")
    status, _, told = simnet("replay", str(out))
    assert (status, "no check failed" in told) == (2, True)
    status, told, _ = simnet("replay", str(out), "--step", "30", "--node", "1")
    assert (status, "next" in told) == (0, True)


def test_a_core_that_raises_is_a_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with the step, the node and the place, not with a traceback."""

    def fail(self: Payee, *arguments: Any) -> int:
        raise KeyError("gone")

    monkeypatch.setattr(Payee, "send_limit_ucr", fail)
    told = summary_of(scenario())
    assert told["failure"]["rule"] == "no step raises"
    assert "KeyError" in told["failure"]["detail"]
    assert told["failure"]["step"] > 0


def test_a_failing_scenario_shrinks_to_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seller and one asker are enough to break this rule; the faults have no part in it."""
    file, out = tmp_path / "large.toml", tmp_path / "run"
    fault = '[[faults]]\nkind = "skew"\nat_s = 1\n'
    file.write_text(f"nodes = 20\n[[providers]]\ncount = 5\n{fault}")
    lower_total(monkeypatch)
    status, told, _ = simnet("run", str(file), "--out", str(out), "--no-tables", "-q", "--shrink")
    assert status == 1
    assert f"smaller: simnet run {out / 'shrunk.toml'}" in told
    smaller = scenario_file.load(out / "shrunk.toml")
    assert (smaller.nodes, smaller.providers[0].count, smaller.requesters[0].count) == (2, 1, 1)
    assert smaller.faults == ()
    again = summary_of(smaller)
    assert again["failure"]["rule"] == "I5 accepted totals strictly rise"
