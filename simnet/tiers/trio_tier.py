"""The trio tier: a scenario through whole daemons, on virtual time, beside the event heap's run.

Both tiers share the models of links, gossip, machines and people; between them lie the daemon's
journal, driver, streams and engine jobs against the simulator's driver. What every node's log
holds must come out the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio
import trio._core._run as trio_scheduling
import trio.testing

from protocol.errors import ConfigError
from protocol.units import NS_PER_S
from simnet.runner import SETTLE_S, STEP_NS, Run
from simnet.scenario import Scenario
from simnet.scenario_faults import Churn, Crash, Skew
from simnet.simulation import EPOCH_NS, Simulation
from simnet.tiers.decisions import compare, fingerprint
from simnet.tiers.shell import ShellSimulation

TRIO_NODES_MAX: Final = 200


def check_fits(scenario: Scenario) -> None:
    """ConfigError `config.tier` for what this tier can't run."""
    if scenario.nodes > TRIO_NODES_MAX:
        raise ConfigError(
            "config.tier",
            f"{scenario.name} has {scenario.nodes} nodes; --tier trio takes {TRIO_NODES_MAX} at "
            "most: take fewer, or the tier des",
        )
    if scenario.adversaries:
        raise ConfigError(
            "config.tier",
            f"{scenario.name} has adversaries, which are cores without the daemon's shell; "
            "take the tier des",
        )
    for fault in scenario.faults:
        if isinstance(fault, Churn | Crash | Skew):
            kind = str(type(fault).__struct_config__.tag)
            raise ConfigError(
                "config.tier",
                f"{scenario.name} has the fault {kind!r}: a daemon of --tier trio keeps running, "
                "by an honest clock; take it out, or the tier des",
            )


class Reference(Simulation):
    """The event heap's run, with what the daemon does beside the market: heads of its log."""

    with_heads = True


@dataclass
class ReferenceRun(Run):
    """The run that the tier is held against."""

    simulation: Simulation = field(init=False)

    def _make(self) -> Simulation:
        self.simulation = Reference(self.scenario, self.seed, self.recorder, self.beside)
        return self.simulation


class _InOrder:
    """Instead of trio's chance: tasks that are due together run oldest first."""

    def shuffle(self, batch: list[Any]) -> None:
        """As it is."""

    def random(self) -> float:
        """Never under a half."""
        return 1.0


def run_in_order(main: Callable[..., Any], *arguments: Any) -> None:
    """`trio.run` on virtual time, each time the same.

    trio shuffles tasks lest programs rely on an order. Here an equal seed has to give an equal
    run, so its own switch for that, which hypothesis uses too, is set for as long.
    """
    scheduling: Any = trio_scheduling
    before = scheduling._ALLOW_DETERMINISTIC_SCHEDULING, scheduling._r
    scheduling._ALLOW_DETERMINISTIC_SCHEDULING, scheduling._r = True, _InOrder()
    try:
        trio.run(main, *arguments, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        scheduling._ALLOW_DETERMINISTIC_SCHEDULING, scheduling._r = before


@dataclass
class TrioRun(Run):
    """One run through the shell, then the same by the event heap; the summary holds both."""

    simulation: ShellSimulation = field(init=False)

    def go(self) -> dict[str, Any]:
        """As in `Run`; `trace_hash` is over all nodes' logs, `decisions` what the tiers share.

        Checks after every step are made in the event heap's run.
        """
        check, self.check = self.check, "off" if self.check == "off" else "end"
        summary = super().go() | {"tier": "trio"}
        summary["trace_hash"] = fingerprint(self.simulation.peers)
        if self.stop:
            return summary
        reference = ReferenceRun(self.scenario, self.seed, self.beside, check=check)
        des = reference.go()
        peers, others = self.simulation.peers, reference.simulation.peers
        found = compare(peers, others, self.simulation.number_of)
        summary["decisions"] = found | {"des_cpu_s": des["cpu_s"], "des_faults": des["faults"]}
        if not found["same_decisions"]:
            told = f"{found['nodes_that_decided_otherwise']} nodes decided otherwise than in des"
            summary["faults"].append(f"{told}; {found['differences'][0]}")
        summary["checks_ok"] = summary["checks_ok"] and not summary["faults"] and des["checks_ok"]
        return summary

    def _make(self) -> Simulation:
        self.simulation = ShellSimulation(self.scenario, self.seed, self.recorder, self.beside)
        return self.simulation

    def _phases(self, simulation: Simulation) -> None:
        run_in_order(self._all_phases)

    async def _all_phases(self) -> None:
        simulation, scenario = self.simulation, self.scenario
        clock, market = simulation.clock, simulation.market
        async with trio.open_nursery() as nursery:
            clock.begin()
            try:
                nursery.start_soon(clock.keep_running)
                await simulation.open(nursery)
                simulation.begin()
                end_ns = EPOCH_NS + (scenario.warmup_s + scenario.duration_s) * NS_PER_S
                await self._wait(lambda: False, end_ns)
                drained_ns = end_ns + scenario.drain_s * NS_PER_S
                await self._wait(lambda: not market.open, drained_ns)
                if not self.stop:
                    simulation.close_channels()
                    settled_ns = clock.now_ns + SETTLE_S * NS_PER_S
                    await self._wait(self._settled, settled_ns)
                await simulation.collect()
            finally:
                clock.end()
            nursery.cancel_scope.cancel()

    async def _wait(self, done: Callable[[], bool], until_ns: int) -> None:
        clock = self.simulation.clock
        while not self.stop and not done() and clock.now_ns < until_ns:
            await trio.sleep_until(clock.seconds(min(clock.now_ns + STEP_NS, until_ns)))
            self._look(self.simulation)

    def _settled(self) -> bool:
        peers = self.simulation.peers
        return not any(peer.node.context.ledger.open_channels for peer in peers)
