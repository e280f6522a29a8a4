"""A run again, up to the step before a check failed: what led to it, and what each node held.

The same code and seed give the same steps, so the failing step is found by its number alone.
"""

from collections import deque
from pathlib import Path
from typing import Any, Final

from protocol.errors import ConfigError, RemoteError
from protocol.framing import HEADER_BYTES
from protocol.units import NS_PER_S
from protocol.wire import decode
from router import actions as act
from router.actions import Input
from simnet.peer import Peer
from simnet.runs.runner import Run
from simnet.scenario import Scenario
from simnet.simulation import EPOCH_NS, Simulation

STEPS_SHOWN: Final = 20


class Reached(Exception):
    """The step is the next one."""


class Replay:
    """Runs a scenario until `step` is next, and keeps the last steps of `node`."""

    def __init__(self, step: int, node: int, shown: int = STEPS_SHOWN) -> None:
        self._step, self._node = step, node
        self._lines: deque[str] = deque(maxlen=shown)
        self._simulation: Simulation | None = None

    def go(self, scenario: Scenario, seed: int, beside: Path) -> list[str]:
        """What was seen, a line each. ConfigError when the run never comes to that step."""
        run = Run(scenario, seed, beside, prepare=self._prepare, check="off")
        try:
            run.go()
        except Reached:
            return [*self._lines, *self._state()]
        raise ConfigError("config.bad_value", f"the run ends before step {self._step}")

    def _prepare(self, simulation: Simulation) -> None:
        self._simulation = simulation
        simulation.before_step = self._before

    def _before(self, peer: Peer, item: Input | None) -> None:
        simulation = self._simulation
        assert simulation is not None
        reached = simulation.steps >= self._step
        if peer.index == self._node or reached:
            at_s = (simulation.clock.now_ns - EPOCH_NS) / NS_PER_S
            mark = "next" if reached else f"{simulation.steps}"
            self._lines.append(f"{mark:>9}  {at_s:.6f} s  node {peer.index}: {told(item)}")
        if reached:
            raise Reached

    def _state(self) -> list[str]:
        """The channels of the node, before the step."""
        assert self._simulation is not None
        peer = self._simulation.peers[self._node]
        lines = [f"node {peer.index} holds {len(peer.log)} records, {peer.durable} durable"]
        for cid, channel in peer.node.context.ledger.channels.items():
            other = self._simulation.number_of(channel.peer)
            lanes = ", ".join(f"{lane.lane} {lane.state.value}" for lane in channel.lanes.values())
            lines.append(
                f"  channel {cid.hex()[:16]}, {channel.role.value} with node {other}: "
                f"{channel.state.value}, total {channel.total_ucr}, due {channel.due_ucr}, "
                f"deposit {channel.deposit_ucr} ucr; lanes: {lanes or 'none'}"
            )
        return lines


def told(item: Any) -> str:
    """An input in a few words."""
    if item is None:
        return "its timer"
    name = type(item).__name__
    if isinstance(item, act.SessionData):
        try:
            message = type(decode(item.data[HEADER_BYTES:])).__name__
        except RemoteError:
            message = f"{len(item.data)} bytes"
        return f"{name} {message} from {item.session.peer.hex()[:8]}"
    if isinstance(item, act.GossipReceived):
        return f"{name} {type(item.signed.message).__name__}"
    code = getattr(item, "code", "")
    return f"{name} {code}".rstrip()
