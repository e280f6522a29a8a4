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
from simnet.runs.runner import Run
from simnet.scenario import Scenario
from simnet.scenario.faults import Skew
from simnet.simulation import Simulation
from simnet.tiers.decisions import compare, fingerprint
from simnet.tiers.shell import ShellSimulation
from simnet.tiers.shell_run import quiet_daemons, run_shell

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
        if isinstance(fault, Skew):
            kind = str(type(fault).__struct_config__.tag)
            raise ConfigError(
                "config.tier",
                f"{scenario.name} has the fault {kind!r}: a daemon of --tier trio has an honest "
                "clock; take it out, or the tier des",
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
    """Instead of trio's chance: always turn the batch, so that tasks run in the order of time."""

    def random(self) -> float:
        """Under a half."""
        return 0.0


def run_in_order(main: Callable[..., Any], *arguments: Any) -> None:
    """`trio.run` on virtual time, each time the same; the last argument moves the clock.

    trio runs what is due together in its order or, by chance, the other way round, lest programs
    rely on one. Here an equal seed has to give an equal run.
    """
    scheduling: Any = trio_scheduling
    before = scheduling._ALLOW_DETERMINISTIC_SCHEDULING, scheduling._r
    scheduling._ALLOW_DETERMINISTIC_SCHEDULING, scheduling._r = False, _InOrder()
    try:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(main, *arguments, clock.jump, clock=clock)
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
        with quiet_daemons():
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
        run_in_order(run_shell, self, self.simulation)
