"""What a scenario says: one immutable value, from which with a seed everything follows.

Shapes and bounds only; `file` reads and writes it, `market` and `network` hold its two halves.
"""

from typing import Annotated

from msgspec import Meta

from simnet.scenario.adversaries import AnyAdversary
from simnet.scenario.faults import AnyFault
from simnet.scenario.market import Gpu, Model, Providers, Requesters
from simnet.scenario.network import (
    Access,
    Costs,
    Disk,
    Gossip,
    Latency,
    Ppm,
    Table,
    Topology,
)

NODES_MAX = 100_000


class Record(Table, frozen=True, kw_only=True):
    """What goes into the tables."""

    deliveries_ppm: Annotated[Ppm, Meta(description="messages whose every delivery is a row")] = (
        1_000_000
    )
    series_ms: Annotated[
        int, Meta(ge=10, le=3_600_000, description="between rows of the nodes' time series")
    ] = 1_000
    series_nodes_max: Annotated[
        int, Meta(ge=0, le=NODES_MAX, description="nodes in the time series; sellers first")
    ] = 200


class Scenario(Table, frozen=True, kw_only=True):
    """A network, its market, and for how long."""

    name: Annotated[
        str,
        Meta(min_length=1, max_length=64, pattern="^[a-z0-9][a-z0-9-]*$", description="its name"),
    ]
    description: Annotated[str, Meta(max_length=400, description="one line for `list`")] = ""
    nodes: Annotated[
        int, Meta(ge=2, le=NODES_MAX, description="all nodes; those in no group only relay")
    ] = 20
    warmup_s: Annotated[
        int, Meta(ge=0, le=3_600, description="for meshes to form, before the first request")
    ] = 5
    duration_s: Annotated[
        int, Meta(ge=1, le=86_400 * 30, description="virtual time in which requests come")
    ] = 30
    drain_s: Annotated[
        int, Meta(ge=0, le=86_400, description="for what is open to end; then channels close")
    ] = 90
    credit_limit_ucr: Annotated[
        int, Meta(ge=0, le=10**15, description="what each provider believes of a payer in all")
    ] = 10_000_000
    standing_offers: Annotated[
        bool,
        Meta(description="providers say on the topic what they sell: awards without auction"),
    ] = False
    bids_wanted: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="self-selection: sellers over the clearing price bid by lot, about so "
            "many; 0: all bid",
        ),
    ] = 0
    topology: Topology = Topology()
    latency: Latency = Latency()
    access: Access = Access()
    gossip: Gossip = Gossip()
    costs: Costs = Costs()
    disk: Disk = Disk()
    record: Record = Record()
    models: Annotated[tuple[Model, ...], Meta(min_length=1, max_length=64)] = (Model(),)
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=64)] = ()
    providers: Annotated[tuple[Providers, ...], Meta(min_length=1, max_length=64)] = (Providers(),)
    requesters: Annotated[tuple[Requesters, ...], Meta(min_length=1, max_length=64)] = (
        Requesters(),
    )
    faults: Annotated[tuple[AnyFault, ...], Meta(max_length=64)] = ()
    adversaries: Annotated[tuple[AnyAdversary, ...], Meta(max_length=64)] = ()


def files_of(scenario: Scenario) -> list[str]:
    """The files that a scenario names, as it names them."""
    names = [scenario.topology.path] if scenario.topology.kind in ("edges", "gml") else []
    names += [scenario.latency.matrix] if scenario.latency.matrix else []
    names += [group.trace for group in scenario.requesters if group.arrivals == "trace"]
    return list(dict.fromkeys(names))
