"""Which node is what: providers, requesters and relays, drawn once from the seed."""

from collections.abc import Iterator
from typing import Final

from simnet.entropy import Entropy
from simnet.network.latency import ROUND_TRIPS_MS
from simnet.scenario import Scenario
from simnet.scenario.adversaries import (
    AnyAdversary,
    Asker,
    Censor,
    Degrade,
    Eclipse,
    Flood,
    Seller,
)
from simnet.scenario.faults import FlashCrowd, Partition
from simnet.scenario.market import GPUS, Gpu, Model, Providers, Requesters

NETWORK: Final = (Censor, Degrade, Eclipse, Flood)  # of no group


class Roles:
    """The nodes' parts in the market. A node is in one group at most."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        order = list(range(scenario.nodes))
        Entropy(seed, "roles").shuffle(order)
        self._gpus = {gpu.name: gpu for gpu in (*GPUS, *scenario.gpus)}
        self._models = {model.name: model for model in scenario.models}
        self.members: dict[str, list[int]] = {}
        self.providers: dict[int, Providers] = {}
        self.requesters: dict[int, Requesters] = {}
        self._sells: dict[int, tuple[Model, ...]] = {}
        taken = 0
        for seller in scenario.providers:
            chosen = sorted(order[taken : taken + seller.count])
            taken += seller.count
            self.members[seller.name] = chosen
            for turn, index in enumerate(chosen):
                self.providers[index] = seller
                names = seller.models or (scenario.models[turn % len(scenario.models)].name,)
                self._sells[index] = tuple(self._models[name] for name in names)
        for asker in scenario.requesters:
            chosen = sorted(order[taken : taken + asker.count])
            taken += asker.count
            self.members[asker.name] = chosen
            self.requesters.update(dict.fromkeys(chosen, asker))
        self.nodes = scenario.nodes
        self.kinds = scenario.adversaries
        self.adversaries: dict[int, AnyAdversary] = {}
        for kind in scenario.adversaries:
            if isinstance(kind, NETWORK):
                name = str(kind.__struct_config__.tag)
                chosen = sorted(order[taken : taken + kind.nodes])
                taken += kind.nodes
                self.members[name] = chosen
            else:
                chosen = self.members[kind.group]
            self.adversaries.update(dict.fromkeys(chosen, kind))

    def gpu(self, group: Providers) -> Gpu:
        """The group's class of machine."""
        return self._gpus[group.gpu]

    def sells(self, index: int) -> tuple[Model, ...]:
        """What a provider sells."""
        return self._sells[index]

    def adversary(self, index: int) -> str:
        """The kind of adversary that a node is; empty when honest."""
        kind = self.adversaries.get(index)
        return "" if kind is None else str(kind.__struct_config__.tag)

    def role(self, index: int) -> tuple[str, str]:
        """A node's part, and its group."""
        if index in self.providers:
            return "provider", self.providers[index].name
        if index in self.requesters:
            return "requester", self.requesters[index].name
        for name, members in self.members.items():
            if index in self.adversaries and index in members:
                return "relay", name
        return "relay", ""


def misfits(scenario: Scenario) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What no single field can be checked for: where, and what was expected there."""
    models = [model.name for model in scenario.models]
    gpus = [gpu.name for gpu in (*GPUS, *scenario.gpus)]
    for number, seller in enumerate(scenario.providers):
        if seller.gpu not in gpus:
            yield ("providers", number, "gpu"), _unknown(seller.gpu, gpus)
        for name in seller.models:
            if name not in models:
                yield ("providers", number, "models"), _unknown(name, models)
    for number, asker in enumerate(scenario.requesters):
        for name in asker.models:
            if name not in models:
                yield ("requesters", number, "models"), _unknown(name, models)
        if asker.models and not any(asker.models.values()):
            yield ("requesters", number, "models"), "expected a weight over 0"
        if asker.arrivals == "trace" and not asker.trace:
            yield ("requesters", number, "trace"), "expected the path of a CSV file"
    for kind, named in (
        ("models", scenario.models),
        ("gpus", (*GPUS, *scenario.gpus)),
        ("providers", scenario.providers),
        ("requesters", scenario.requesters),
    ):
        names = [one.name for one in named]
        if len(set(names)) != len(names):
            yield (kind,), f"each needs a name of its own, not {', '.join(names)}"
    yield from _adversary_misfits(scenario)
    sellers = sum(group.count for group in scenario.providers)
    askers = sum(group.count for group in scenario.requesters)
    others = sum(kind.nodes for kind in scenario.adversaries if isinstance(kind, NETWORK))
    if sellers + askers + others > scenario.nodes:
        also = f" and {others} adversaries" if others else ""
        needed = sellers + askers + others
        what = f"{sellers} providers and {askers} requesters{also} need {needed} nodes"
        yield ("nodes",), f"{what}, not {scenario.nodes}"
    yield from _fault_misfits(scenario)
    gossip = scenario.gossip
    if not gossip.degree_low <= gossip.degree <= gossip.degree_high:
        yield ("gossip", "degree"), "expected degree_low <= degree <= degree_high"
    if scenario.topology.kind in ("edges", "gml") and not scenario.topology.path:
        yield ("topology", "path"), "expected the path of a file"
    if not any(scenario.access.links.values()):
        yield ("access", "links"), "expected a weight over 0"
    if not scenario.latency.matrix:
        for region in scenario.latency.regions:
            if region not in ROUND_TRIPS_MS:
                yield ("latency", "regions"), _unknown(region, list(ROUND_TRIPS_MS))
    if scenario.latency.regions and not any(scenario.latency.regions.values()):
        yield ("latency", "regions"), "expected a weight over 0"


def _fault_misfits(scenario: Scenario) -> Iterator[tuple[tuple[str | int, ...], str]]:
    askers = [group.name for group in scenario.requesters]
    groups = [group.name for group in scenario.providers] + askers
    for number, fault in enumerate(scenario.faults):
        known = askers if isinstance(fault, FlashCrowd) else ["", *groups]
        if fault.group not in known:
            yield ("faults", number, "group"), _unknown(fault.group, known)
        if isinstance(fault, Partition) and not fault.group and not fault.nodes:
            yield ("faults", number), "a partition needs group or nodes: who is on one side"


def _adversary_misfits(scenario: Scenario) -> Iterator[tuple[tuple[str | int, ...], str]]:
    sellers = [group.name for group in scenario.providers]
    askers = [group.name for group in scenario.requesters]
    taken: list[str] = []
    for number, kind in enumerate(scenario.adversaries):
        if isinstance(kind, NETWORK):
            name, known = str(kind.__struct_config__.tag), []
            victims = getattr(kind, "victims", "")
            if victims and victims not in sellers + askers:
                yield ("adversaries", number, "victims"), _unknown(victims, sellers + askers)
        else:
            name = kind.group
            known = sellers if isinstance(kind, Seller) else askers
            known = known if isinstance(kind, Seller | Asker) else sellers + askers
            if name not in known:
                yield ("adversaries", number, "group"), _unknown(name, known)
        if name in taken or (isinstance(kind, NETWORK) and name in sellers + askers):
            yield ("adversaries", number), f"{name!r} is taken already"
        taken.append(name)


def _unknown(name: str, known: list[str]) -> str:
    return f"there is no {name!r}; there are {', '.join(known)}"
