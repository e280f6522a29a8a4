"""Which node is what: providers, requesters and relays, drawn once from the seed."""

from typing import Final

from simnet.entropy import Entropy
from simnet.scenario import Scenario
from simnet.scenario.adversaries import AnyAdversary, Censor, Degrade, Eclipse, Flood
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
