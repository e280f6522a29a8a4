"""What goes wrong in a scenario, and when: each table `[[faults]]` is one kind of fault.

Times count from the first request. Whatever the file says, every fault is over when the last
request has come, so that a run shows whether the market recovers.
"""

from typing import Annotated, Literal

from msgspec import Meta

from simnet.scenario.network import Table

Seconds = Annotated[int, Meta(ge=0, le=86_400 * 30)]


class Fault(Table, frozen=True, kw_only=True, tag_field="kind"):
    """When, for how long, and to whom."""

    at_s: Annotated[Seconds, Meta(description="when it first happens")] = 0
    for_s: Annotated[
        Seconds, Meta(description="how long each time; 0: until the last request")
    ] = 0
    every_s: Annotated[
        Seconds, Meta(description="mean time until it happens again, drawn; 0: it happens once")
    ] = 0
    group: Annotated[str, Meta(max_length=64, description="whom; empty: nodes of any group")] = ""
    nodes: Annotated[
        int, Meta(ge=0, le=100_000, description="how many of them, drawn each time; 0: all")
    ] = 0


class Crash(Fault, frozen=True, kw_only=True, tag="crash"):
    """Nodes die at once and start again from their logs."""

    lost_records: Annotated[
        int, Meta(ge=0, le=10_000, description="up to so many records that no sync reached vanish")
    ] = 0


class Churn(Fault, frozen=True, kw_only=True, tag="churn"):
    """Each node leaves and comes back again and again, on its own."""

    up_s: Annotated[int, Meta(ge=1, le=86_400 * 30, description="mean time that it stays")] = 60
    down_s: Annotated[int, Meta(ge=1, le=86_400 * 30, description="mean time away")] = 20
    shape: Annotated[
        Literal["exponential", "bimodal"],
        Meta(description="bimodal: half of the stays are a tenth of the mean, half 19 tenths"),
    ] = "exponential"
    lost_records: Annotated[int, Meta(ge=0, le=10_000, description="as of a crash")] = 0


class Partition(Fault, frozen=True, kw_only=True, tag="partition"):
    """Nothing gets from one side to the other; streams across break, and both ends notice."""

    shape: Annotated[
        Literal["clean", "one-way", "bridge"],
        Meta(
            description="clean: two sides; one-way: the chosen hear nothing but are heard; "
            "bridge: two sides that both reach a few"
        ),
    ] = "clean"
    bridges: Annotated[int, Meta(ge=1, le=100_000, description="bridge: how many")] = 1


class Clog(Fault, frozen=True, kw_only=True, tag="clog"):
    """What comes from or goes to the chosen is late."""

    delay_ms: Annotated[int, Meta(ge=1, le=600_000, description="by so much")] = 500


class SlowDisk(Fault, frozen=True, kw_only=True, tag="slow-disk"):
    """Syncs of the chosen take longer."""

    sync_ms: Annotated[int, Meta(ge=1, le=60_000, description="each takes so long")] = 100


class Skew(Fault, frozen=True, kw_only=True, tag="skew"):
    """Clocks of the chosen are wrong."""

    skew_ms: Annotated[
        int, Meta(ge=1, le=3_600_000, description="ahead or behind, evenly up to so much")
    ] = 1_000


class SlowNode(Fault, frozen=True, kw_only=True, tag="slow-node"):
    """Processors and machines of the chosen are slower, though they promise what they did."""

    slowdown_permille: Annotated[
        int, Meta(ge=1_000, le=1_000_000, description="time that work takes, against before")
    ] = 4_000


class FlashCrowd(Fault, frozen=True, kw_only=True, tag="flash-crowd"):
    """A group of requesters asks all at once."""

    requests: Annotated[int, Meta(ge=1, le=100_000, description="so many requests")] = 50


AnyFault = Crash | Churn | Partition | Clog | SlowDisk | Skew | SlowNode | FlashCrowd
