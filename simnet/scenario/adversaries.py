"""Who does not keep the rules, and how: each table `[[adversaries]]` is one kind.

Those of the market take over a whole group of providers or requesters; those of the network are
nodes of no group. All their other code is the honest one.
"""

from typing import Annotated

from msgspec import Meta

from simnet.scenario.network import Permille, Table

Group = Annotated[str, Meta(max_length=64, description="the group that it takes over")]
Count = Annotated[int, Meta(ge=1, le=100_000, description="how many nodes of no group")]
Factor = Annotated[int, Meta(ge=1_001, le=1_000_000)]


class Adversary(Table, frozen=True, kw_only=True, tag_field="kind"):
    """One kind, once."""


class Seller(Adversary, frozen=True, kw_only=True):
    """Providers that cheat."""

    group: Group = "adversaries"


class Vanish(Seller, frozen=True, kw_only=True, tag="vanish"):
    """Bids, wins, keeps the first voucher, and is never heard of again."""


class Garbage(Seller, frozen=True, kw_only=True, tag="garbage"):
    """Sells text that no machine made, as fast as the wire takes it."""


class WrongDigest(Seller, frozen=True, kw_only=True, tag="wrong-digest"):
    """Its chunks' text is not what their signed transcript says."""


class OverClaim(Seller, frozen=True, kw_only=True, tag="over-claim"):
    """Counts more tokens than it made."""

    factor_permille: Annotated[Factor, Meta(description="so many, against the true ones")] = 3_000


class OverPromise(Seller, frozen=True, kw_only=True, tag="over-promise"):
    """Promises a faster machine than it has."""

    factor_permille: Annotated[Factor, Meta(description="so much faster")] = 4_000


class Collude(Seller, frozen=True, kw_only=True, tag="collude"):
    """One of the group bids on each request, the others stay silent."""


class Snipe(Seller, frozen=True, kw_only=True, tag="snipe"):
    """Holds its bids back until the bid window nearly ends."""

    margin_ms: Annotated[int, Meta(ge=1, le=10_000, description="so long before it ends")] = 200


class ClearingLies(Seller, frozen=True, kw_only=True, tag="clearing-lies"):
    """Tells all sellers that auctions end at a price of nothing; bids on everything itself."""


class Asker(Adversary, frozen=True, kw_only=True):
    """Requesters that cheat."""

    group: Group = "adversaries"


class StopPaying(Asker, frozen=True, kw_only=True, tag="stop-paying"):
    """Takes what is sent and sends no voucher."""


class DoubleSpend(Asker, frozen=True, kw_only=True, tag="double-spend"):
    """Pays each time with the first voucher that it signed on the channel."""


class Rollback(Adversary, frozen=True, kw_only=True, tag="rollback"):
    """Starts anew from an old copy of its log, as if nothing had happened since."""

    group: Group = "adversaries"
    at_s: Annotated[int, Meta(ge=0, le=86_400 * 30, description="when")] = 15
    keep_permille: Annotated[Permille, Meta(description="of its records, the copy's part")] = 500


class Flood(Adversary, frozen=True, kw_only=True, tag="flood"):
    """Publishes valid requests as fast as it can, and awards none."""

    nodes: Count = 1
    messages_per_s: Annotated[int, Meta(ge=1, le=10_000, description="of each")] = 100


class Censor(Adversary, frozen=True, kw_only=True, tag="censor"):
    """Takes part in the mesh and passes nothing on."""

    nodes: Count = 10
    victims: Annotated[
        str, Meta(max_length=64, description="only what this group publishes; empty: all")
    ] = ""


class Degrade(Adversary, frozen=True, kw_only=True, tag="degrade"):
    """Passes everything on, late."""

    nodes: Count = 10
    delay_ms: Annotated[int, Meta(ge=1, le=60_000, description="by so much")] = 500


class Eclipse(Adversary, frozen=True, kw_only=True, tag="eclipse"):
    """All neighbours of the victims are such; nothing passes from or to a victim."""

    nodes: Count = 8
    victims: Annotated[str, Meta(max_length=64, description="the victims' group")] = "requesters"
    victim_nodes: Annotated[
        int, Meta(ge=0, le=100_000, description="how many of it, the first ones; 0: all")
    ] = 1


AnyAdversary = (
    Vanish
    | Garbage
    | WrongDigest
    | OverClaim
    | OverPromise
    | Collude
    | Snipe
    | ClearingLies
    | StopPaying
    | DoubleSpend
    | Rollback
    | Flood
    | Censor
    | Degrade
    | Eclipse
)
