"""Each node's processor: one thing after the other, in the order in which it came."""

from protocol.units import NS_PER_US
from router import actions as act
from simnet.scenario.network import Costs


class Cpu:
    """When each node will have done what it was given so far."""

    __slots__ = ("free_ns", "speed_permille", "used_ns")

    def __init__(self, nodes: int) -> None:
        self.free_ns = [0] * nodes
        self.used_ns = [0] * nodes
        self.speed_permille: dict[int, int] = {}  # slow nodes: time taken, 1000 is usual

    def take(self, node: int, now_ns: int, cost_ns: int) -> int:
        """When work of `cost_ns` that comes in now will be done."""
        if node in self.speed_permille:
            cost_ns = cost_ns * self.speed_permille[node] // 1_000
        free_ns = self.free_ns[node]
        done_ns = (free_ns if free_ns > now_ns else now_ns) + cost_ns
        self.free_ns[node] = done_ns
        self.used_ns[node] += cost_ns
        return done_ns


def input_costs(costs: Costs) -> dict[type, int]:
    """CPU time of what comes from the network, in ns."""
    return {
        act.SessionData: costs.frame_us * NS_PER_US,
        act.SessionOpened: costs.dial_us * NS_PER_US,
        act.BidReceived: costs.bid_taken_us * NS_PER_US,
    }
