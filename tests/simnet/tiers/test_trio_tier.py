"""Whole daemons on virtual time do what the event heap's nodes do, to the byte of every log.

Source: simnet/README.md, "Tiers".
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio
from click.testing import CliRunner

from protocol.records import ChannelClosed, encode_record
from protocol.units import NS_PER_MS
from simnet.cli import main
from simnet.scenario import Scenario
from simnet.scenario import file as scenario_file
from simnet.scenario.network import Disk
from simnet.tiers.decisions import compare, decisions
from simnet.tiers.scheduling import run_in_order
from simnet.tiers.task_clock import TaskClock
from simnet.tiers.trio_tier import ReferenceRun, TrioRun

HERE = Path()


def hello(**changes: object) -> Scenario:
    """The ready scenario, with less of it."""
    loaded = scenario_file.load(scenario_file.find("hello"))
    return msgspec.structs.replace(loaded, **changes)


def test_hello_comes_out_the_same_in_both_tiers() -> None:
    """Journals, outboxes, streams and jobs of the daemon change no award, price or receipt, and
    no byte of any log."""
    run = TrioRun(hello(duration_s=15), 1, HERE)
    summary = run.go()
    assert summary["checks_ok"], summary["faults"]
    assert summary["decisions"]["same_logs"]
    assert summary["decisions"]["decisions"] > 20
    # What was compared is what the market did: both sides of each job, and the settlements.
    peers, number_of = run.simulation.peers, run.simulation.number_of
    kinds = [decision[0] for peer in peers for decision in decisions(peer, number_of)]
    assert kinds.count("award") == kinds.count("receipt") == summary["done"] > 0
    assert summary["settled_ucr"] == summary["paid_ucr"] > 0


def test_what_differs_is_told() -> None:
    """A slower disk is another run: other times in logs. A settlement changed is a decision."""
    cut = hello(duration_s=4, nodes=20)
    one, other = ReferenceRun(cut, 1, HERE), ReferenceRun(cut, 1, HERE)
    other.scenario = msgspec.structs.replace(cut, disk=Disk(sync_us=900))
    one.go(), other.go()
    mine, theirs = one.simulation.peers, other.simulation.peers
    slow = compare(mine, theirs, one.simulation.number_of)
    assert not slow["same_logs"]
    assert all(": record " in line and "differs in " in line for line in slow["differences"])
    peer = next(peer for peer in mine if peer.log and peer.log[-1][0] == 10)
    untouched = [replace(peer, log=list(peer.log)) for peer in mine]
    closed = ChannelClosed(bytes(32), 1, 3, 0, b"", b"")
    peer.log[-1] = encode_record(closed)
    changed = compare(mine, untouched, one.simulation.number_of)
    assert not changed["same_decisions"]
    assert changed["differences"][0].startswith(f"node {peer.index}: settlement 1 3, not ")


@pytest.mark.parametrize(
    ("tier", "file", "told"),
    [
        ("trio", "nodes = 201", "--tier trio takes 200 at most"),
        ("live", "nodes = 51", "--tier live takes 50 at most"),
        ("live", '[[faults]]\nkind = "clog"', "has faults; --tier live runs honest daemons"),
    ],
)
def test_what_a_tier_cannot_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str, file: str, told: str
) -> None:
    """In one line, with a code, and before there is a directory for it."""
    monkeypatch.chdir(tmp_path)
    scenario = tmp_path / "mine.toml"
    scenario.write_text(f'name = "mine"\n{file}\n')
    result = CliRunner().invoke(main, ["run", str(scenario), "--tier", tier])
    assert result.exit_code == 2
    assert result.stderr.startswith("simnet: config.tier: mine has ")
    assert told in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_the_command_runs_it(tmp_path: Path) -> None:
    """The same summary and tables as of any run, and what the tiers have in common."""
    scenario = tmp_path / "two.toml"
    providers, requesters = "[[providers]]\ncount = 1\n", "[[requesters]]\ncount = 1\n"
    scenario.write_text(f'name = "two"\nnodes = 2\nduration_s = 4\n{providers}{requesters}')
    out = tmp_path / "out"
    arguments = ["run", str(scenario), "--tier", "trio", "--json", "-q", "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["tier"] == "trio"
    assert summary["decisions"]["same_logs"]
    assert summary["awarded"] == summary["requests"] > 0
    assert (out / "settlements.parquet").exists()
    again = CliRunner().invoke(main, ["replay", str(out)])
    assert again.exit_code == 2
    assert "is a run of --tier trio, which has no steps" in again.stderr


def test_an_event_that_comes_sooner_wakes_who_waits() -> None:
    """The queue runs in the order of time, also for what tasks put there meanwhile."""
    clock, seen = TaskClock(5), []

    async def run(jump: Callable[[float], None]) -> None:
        async with trio.open_nursery() as nursery:
            clock.begin()
            nursery.start_soon(clock.keep_running, jump)
            clock.after(9 * NS_PER_MS, seen.append, "late")
            await trio.sleep(0.004)
            assert clock.now_ns == 5 + 4 * NS_PER_MS
            clock.after(NS_PER_MS, seen.append, "soon")
            clock.at_each([clock.now_ns], lambda one, _: seen.append(one), ["now"], None)
            await trio.sleep(0.002)
            assert seen == ["now", "soon"]
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
            clock.end(clock.now_ns)

    run_in_order(run)
    assert seen == ["now", "soon", "late"]
    assert clock.now_ns == 5 + 1_006 * NS_PER_MS


def test_what_is_due_together_runs_in_the_order_of_its_setting() -> None:
    """Regression: trio takes equal deadlines by where in memory they lie, so that two runs of a
    seed could differ."""
    woken: list[int] = []

    async def wait(number: int) -> None:
        if number % 3 == 0:  # one that was changed has its new place, behind the others
            with trio.move_on_after(1) as scope:
                scope.deadline = trio.current_time() + 2
                await trio.sleep_forever()
        else:
            await trio.sleep(2)
        woken.append(number)

    async def run(jump: Callable[[float], None]) -> None:
        kept = []
        async with trio.open_nursery() as nursery:
            for number in range(300):
                kept.append(bytearray(number % 7 * 40))  # so that scopes lie here and there
                nursery.start_soon(wait, number)

    run_in_order(run)
    assert woken == list(range(300))


def test_time_waits_for_tasks_that_are_due_with_an_event() -> None:
    """The queue runs ahead while nobody has anything to do, and no further: who sleeps to a
    moment that events share wakes up then, though there are events on either side of it."""
    clock, woken = TaskClock(0), []

    async def run(jump: Callable[[float], None]) -> None:
        async with trio.open_nursery() as nursery:
            clock.begin()
            nursery.start_soon(clock.keep_running, jump)
            for number in range(1, 200):
                clock.after(number * NS_PER_MS // 2, list)
            for number in range(1, 50):
                await trio.sleep_until(clock.seconds(number * NS_PER_MS))
                woken.append(clock.now_ns)
            nursery.cancel_scope.cancel()
            clock.end(clock.now_ns)

    run_in_order(run)
    assert woken == [number * NS_PER_MS for number in range(1, 50)]
