"""The network's half of a scenario: who is linked to whom, how far, how wide, how gossip works.

Every field says its unit in its name and its meaning in its description, from which the commented
file of `simnet init` and the page of the package are made.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Permille = Annotated[int, Meta(ge=0, le=1_000)]
Ppm = Annotated[int, Meta(ge=0, le=1_000_000)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the scenario file: immutable, and unknown keys are refused."""


class Topology(Table, frozen=True, kw_only=True):
    """Which nodes have a connection."""

    kind: Annotated[
        Literal[
            "random-regular",
            "watts-strogatz",
            "barabasi-albert",
            "internet",
            "star",
            "regions",
            "edges",
            "gml",
        ],
        Meta(
            description="random-regular; watts-strogatz (a ring with short cuts); "
            "barabasi-albert (few with many); internet (an AS graph); star (leaves on hubs); "
            "regions (dense within a region, few links between); edges or gml (from path)"
        ),
    ] = "random-regular"
    degree: Annotated[
        int, Meta(ge=1, le=512, description="connections of a node, on average; hubs of a leaf")
    ] = 16
    rewire_permille: Annotated[
        Permille, Meta(description="links that go elsewhere: watts-strogatz, regions")
    ] = 100
    hubs: Annotated[int, Meta(ge=1, le=1_000, description="hubs of a star")] = 1
    path: Annotated[
        str, Meta(description="edges: two node numbers a line; gml: a graph; beside the scenario")
    ] = ""


class Latency(Table, frozen=True, kw_only=True):
    """How far nodes are from each other."""

    regions: Annotated[
        dict[str, Annotated[int, Meta(ge=0, le=1_000_000)]],
        Meta(description="weights of regions; empty: all of the matrix alike"),
    ] = msgspec.field(default_factory=dict)
    matrix: Annotated[
        str, Meta(description="CSV of round trips in ms; empty: 13 cloud regions")
    ] = ""
    jitter_permille: Annotated[
        int,
        Meta(ge=0, le=100_000, description="of the usual: 90th percentile 5 ms over the median"),
    ] = 1_000


class Access(Table, frozen=True, kw_only=True):
    """The nodes' own links, and what goes wrong on them."""

    links: Annotated[
        dict[
            Literal["fast", "standard", "home", "constrained", "bad"],
            Annotated[int, Meta(ge=0, le=1_000_000)],
        ],
        Meta(
            description="weights of the classes: fast 1 Gbit/s; standard 50 Mbit/s; home the "
            "same with +20 ms and 0.1 % loss; constrained 5 Mbit/s; bad 2 Mbit/s, +500 ms, 20 %"
        ),
    ] = msgspec.field(default_factory=lambda: {"fast": 20, "standard": 80})
    loss_ppm: Annotated[Ppm, Meta(description="loss of packets on top of the classes'")] = 0
    duplicate_ppm: Annotated[Ppm, Meta(description="gossip copies that arrive twice")] = 0
    retransmit_ms: Annotated[
        int, Meta(ge=1, le=60_000, description="what a lost packet adds to a stream, and a trip")
    ] = 200


class Scoring(Table, frozen=True, kw_only=True):
    """Gossipsub 1.1's peer scores, in points; off as in the daemon."""

    enabled: Annotated[bool, Meta(description="keep scores and act on them")] = False
    time_in_mesh_points: Annotated[
        float, Meta(ge=0, le=100, description="P1: a second in the mesh, up to 100 s")
    ] = 0.1
    first_delivery_points: Annotated[
        float, Meta(ge=0, le=100, description="P2: a message brought first, up to 100 of them")
    ] = 0.5
    invalid_message_points: Annotated[
        float, Meta(ge=-1e6, le=0, description="P4: times the square of refused messages")
    ] = -10.0
    behaviour_points: Annotated[
        float, Meta(ge=-1e6, le=0, description="P7: times the square of broken promises")
    ] = -5.0
    decay_permille: Annotated[
        Permille, Meta(description="what is left of P2, P4, P7 after a heartbeat")
    ] = 990
    gossip_threshold: Annotated[
        float, Meta(ge=-1e6, le=0, description="under it no IHAVE to, or IWANT from, a peer")
    ] = -10.0
    graylist_threshold: Annotated[
        float, Meta(ge=-1e6, le=0, description="under it all of a peer's messages are dropped")
    ] = -80.0
    opportunistic_heartbeats: Annotated[
        int, Meta(ge=0, le=3_600, description="between opportunistic grafts; 0: there are none")
    ] = 0
    opportunistic_threshold: Annotated[
        float, Meta(ge=0, le=1e6, description="a mesh's median score under which two are grafted")
    ] = 1.0


class Gossip(Table, frozen=True, kw_only=True):
    """The gossip router: a model of gossipsub 1.1, or plain flooding."""

    router: Annotated[
        Literal["gossipsub", "flood"], Meta(description="flood: every copy to every neighbour")
    ] = "gossipsub"
    degree: Annotated[int, Meta(ge=1, le=64, description="D: peers in a mesh")] = 8
    degree_low: Annotated[int, Meta(ge=1, le=64, description="D_lo: fewer are filled up")] = 6
    degree_high: Annotated[int, Meta(ge=1, le=128, description="D_hi: more are pruned")] = 12
    degree_lazy: Annotated[
        int, Meta(ge=0, le=64, description="D_lazy: peers told IHAVE, at least; 0: none")
    ] = 6
    lazy_permille: Annotated[
        Permille, Meta(description="or so many of those outside the mesh, if that is more")
    ] = 250
    heartbeat_ms: Annotated[int, Meta(ge=10, le=600_000, description="between heartbeats")] = 1_000
    history: Annotated[
        int, Meta(ge=1, le=120, description="heartbeats that a message can be asked for")
    ] = 5
    history_offered: Annotated[
        int, Meta(ge=1, le=120, description="heartbeats that a message is offered for")
    ] = 3
    flood_publish: Annotated[
        bool, Meta(description="own messages go to the mesh and others, D_hi in all")
    ] = True
    back_off_s: Annotated[
        int, Meta(ge=0, le=600, description="after a PRUNE the peer is not grafted")
    ] = 10
    offers_in_back_off: Annotated[
        bool, Meta(description="IHAVE goes to peers in back-off too, as in the daemon")
    ] = True
    fanout_ttl_s: Annotated[
        int, Meta(ge=1, le=3_600, description="a publisher outside the topic keeps its peers")
    ] = 60
    scoring: Annotated[Scoring, Meta(description="")] = Scoring()


class Costs(Table, frozen=True, kw_only=True):
    """CPU time of the daemon's work; a node does one thing after the other."""

    # Those of gossip and of a connection are what `simnet calibrate` found on py-libp2p.
    # Rule: simnet/README.md, "Calibration".

    hop_us: Annotated[
        int, Meta(ge=0, le=10**6, description="a gossip message: stack, decode, verify")
    ] = 330
    duplicate_us: Annotated[int, Meta(ge=0, le=10**6, description="a copy of a known message")] = (
        165
    )
    forward_us: Annotated[int, Meta(ge=0, le=10**6, description="each copy sent on")] = 130
    bid_us: Annotated[int, Meta(ge=0, le=10**6, description="quoting, signing, sealing")] = 400
    bid_taken_us: Annotated[
        int, Meta(ge=0, le=10**6, description="a bid: unsealing, verifying, scoring")
    ] = 500
    frame_us: Annotated[
        int, Meta(ge=0, le=10**6, description="a frame of a job stream, signature included")
    ] = 450
    dial_us: Annotated[int, Meta(ge=0, le=10**6, description="a connection, at each end")] = 4_700


class Disk(Table, frozen=True, kw_only=True):
    """The disk under each node's log."""

    sync_us: Annotated[int, Meta(ge=0, le=10**7, description="write and fdatasync")] = 200
