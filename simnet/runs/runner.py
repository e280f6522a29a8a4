"""Runs one scenario from warm-up to the last settlement, and sums it up.

What happens depends on the scenario and the seed alone: the wall clock only decides when progress
is shown, and a stop keeps what there is and marks it.
"""

import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from protocol.units import NS_PER_MS, NS_PER_S
from simnet.checks import at_end as checks
from simnet.checks.each_step import Checkers, CheckFailed
from simnet.checks.gains import gains
from simnet.recording.recorder import Recorder
from simnet.runs.estimate import MIB, memory_used_bytes
from simnet.scenario import Scenario
from simnet.simulation import EPOCH_NS, Simulation

SLICE_EVENTS: Final = 20_000
STEP_NS: Final = NS_PER_S
SETTLE_S: Final = 30
GC_THRESHOLD: Final = 100_000


Watcher = Callable[[Simulation], None]
Check = Literal["every", "end", "off"]


@dataclass(slots=True)
class Run:
    """One run. `stop` may be set from a signal handler; `memory_max_bytes` ends it too."""

    scenario: Scenario
    seed: int
    beside: Path
    recorder: Recorder = field(default_factory=lambda: Recorder(None))
    memory_max_bytes: int = 0
    watch: Watcher | None = None  # called a few times a second, outside of events
    prepare: Watcher | None = None  # called once, before the first event
    check: Check = "every"
    stop: str = ""
    failure: CheckFailed | None = None

    def go(self) -> dict[str, Any]:
        """Run it; the summary."""
        began_s = time.process_time()
        simulation = self._make()
        self._describe(simulation)
        if self.check == "every":
            Checkers(simulation)
        if self.prepare is not None:
            self.prepare(simulation)
        # The nodes live as long as the run: looking at them again and again finds nothing.
        gc.collect()
        gc.freeze()
        thresholds = gc.get_threshold()
        gc.set_threshold(GC_THRESHOLD, 20, 100)
        built_s = time.process_time()
        try:
            self._phases(simulation)
        except CheckFailed as failure:
            self.failure, self.stop = failure, "check"
        except (ArithmeticError, AssertionError, LookupError, TypeError, AttributeError) as error:
            if self.check != "every":
                raise
            self.failure, self.stop = raised(simulation, error), "check"
        finally:
            gc.set_threshold(*thresholds)
            gc.unfreeze()
        ran_s = time.process_time()
        events, trace = simulation.clock.events, simulation.trace()
        left = simulation.market.give_up(simulation.clock.now_ns)
        simulation.finish()
        faults = [str(self.failure)] if self.failure else []
        if not self.stop and self.check != "off":
            faults = checks.faults(simulation, left)
        summary = self._summary(simulation, faults, left)
        if self.failure is not None:
            summary["failure"] = {
                "rule": self.failure.rule,
                "detail": self.failure.detail,
                "node": self.failure.node,
                "step": self.failure.step,
                "at_ns": self.failure.at_ns - EPOCH_NS,
            }
        cpu_s = ran_s - built_s
        summary |= {
            "trace_hash": trace,
            "events": events,
            "cpu_s": round(cpu_s, 3),
            "build_cpu_s": round(built_s - began_s, 3),
            "events_per_cpu_s": round(events / max(cpu_s, 1e-9)),
            "rss_mib": memory_used_bytes() // MIB,
        }
        return summary

    def _make(self) -> Simulation:
        return Simulation(self.scenario, self.seed, self.recorder, self.beside)

    def _phases(self, simulation: Simulation) -> None:
        scenario, clock, market = self.scenario, simulation.clock, simulation.market
        simulation.begin()
        end_ns = EPOCH_NS + (scenario.warmup_s + scenario.duration_s) * NS_PER_S
        self._until(simulation, end_ns)
        drained_ns = end_ns + scenario.drain_s * NS_PER_S
        while not self.stop and market.open and clock.now_ns < drained_ns:
            self._until(simulation, clock.now_ns + STEP_NS)
        if self.stop:
            return
        simulation.close_channels()
        for _ in range(SETTLE_S):
            self._until(simulation, clock.now_ns + STEP_NS)
            channels = (peer.node.context.ledger.open_channels for peer in simulation.peers)
            if self.stop or not any(channels):
                return

    def _until(self, simulation: Simulation, until_ns: int) -> None:
        """Run to a moment in virtual time, unless stopped."""
        while not self.stop and not simulation.clock.run_some(until_ns, SLICE_EVENTS):
            self.look(simulation)
        self.look(simulation)

    def look(self, simulation: Simulation) -> None:
        """Show how far it is, and stop where memory ends."""
        if self.memory_max_bytes and memory_used_bytes() > self.memory_max_bytes:
            self.stop = self.stop or "memory"
        if self.watch is not None:
            self.watch(simulation)

    def _describe(self, simulation: Simulation) -> None:
        """The table of nodes."""
        roles, links = simulation.roles, simulation.links
        for peer in simulation.peers:
            index = peer.index
            seller = simulation.sellers.get(index)
            self.recorder.add(
                "nodes",
                (
                    index,
                    *roles.role(index),
                    links.regions[links.region[index]],
                    links.classes[index],
                    len(simulation.gossip.meshes.neighbours[index]),
                    seller.machine.gpu.name if seller else "",
                    ",".join(model.name for model in seller.models) if seller else "",
                    roles.adversary(index),
                ),
            )

    def _summary(self, simulation: Simulation, faults: list[str], left: int) -> dict[str, Any]:
        market, gossip, totals = simulation.market, simulation.gossip, simulation.market.totals
        return {
            "scenario": self.scenario.name,
            "seed": self.seed,
            "complete": not self.stop,
            "stopped_by": self.stop,
            "nodes": self.scenario.nodes,
            "virtual_s": round((simulation.clock.now_ns - EPOCH_NS) / NS_PER_S, 3),
            "requests": totals.requests,
            "skipped": totals.skipped,
            "bids": totals.bids,
            "bids_sent": totals.bids_sent,
            "awarded": totals.awarded,
            "done": totals.done,
            "failed": totals.failed,
            "open": left,
            "failures": dict(sorted(market.failures.items())),
            "paid_ucr": totals.paid_ucr,
            "settled_ucr": totals.settled_ucr,
            "award_ms": quantiles_ms(market.award_ns),
            "first_text_ms": quantiles_ms(market.first_text_ns),
            "regret": regret(market.regret_permille),
            "gossip": {
                "messages": gossip.messages,
                "deliveries": gossip.deliveries,
                "duplicates": gossip.duplicates,
                "refused": gossip.refused,
                "controls": gossip.controls + gossip.meshes.controls,
                "sent_bytes": simulation.links.sent_bytes,
            },
            "happened": dict(sorted(simulation.faults.counts.items())),
            "groups": gains(simulation),
            "offences": dict(sorted(simulation.penalties.items())),
            "checks_ok": not faults and not self.stop,
            "faults": faults[:100],
        }


def raised(simulation: Simulation, error: Exception) -> CheckFailed:
    """An error of the code itself, as a rule that broke: no step of a node raises."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    detail = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    steps, now_ns = simulation.steps, simulation.clock.now_ns
    return CheckFailed("no step raises", detail, simulation.stepping, steps, now_ns)


def quantiles_ms(times_ns: list[int]) -> dict[str, float]:
    """Median, 90th, 99th percentile in ms; empty without times."""
    ordered = sorted(times_ns)
    if not ordered:
        return {}
    return {
        name: round(ordered[min(len(ordered) - 1, len(ordered) * part // 100)] / NS_PER_MS, 3)
        for name, part in (("p50", 50), ("p90", 90), ("p99", 99))
    }


def regret(permille: list[int]) -> dict[str, float]:
    """Mean and 90th percentile of the first awards' regret, in %; empty without awards."""
    if not permille:
        return {}
    ordered = sorted(permille)
    most = ordered[min(len(ordered) - 1, len(ordered) * 90 // 100)]
    return {"mean": round(sum(ordered) / len(ordered) / 10, 3), "p90": most / 10}
