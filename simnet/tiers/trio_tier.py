"""The trio tier: a scenario through whole daemons, on virtual time, beside the event heap's run.

Both tiers share the models of links, gossip, machines and people; between them lie the daemon's
journal, driver, streams and engine jobs against the simulator's driver. What every node's log
holds must come out the same.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from protocol.errors import ConfigError
from simnet.runs.runner import Run
from simnet.scenario import Scenario
from simnet.simulation import Simulation
from simnet.tiers.decisions import compare, fingerprint
from simnet.tiers.scheduling import run_in_order
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
