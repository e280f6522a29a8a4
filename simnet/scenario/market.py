"""The market's half of a scenario: models, GPUs, who sells at what price, who asks for what."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from protocol import limits
from simnet.scenario.network import Permille, Table

Name = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[a-z0-9][a-z0-9._-]*$")]
Price = Annotated[int, Meta(ge=0, le=10**12)]


class Model(Table, frozen=True, kw_only=True):
    """A model that is bought and sold."""

    name: Annotated[Name, Meta(description="its name")] = "small"
    context_tokens: Annotated[
        int, Meta(ge=256, le=limits.INPUT_TOKENS_MAX, description="input and output together")
    ] = 8_192
    work_permille: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="time a token against the GPUs' figures"),
    ] = 1_000
    input_price_ucr: Annotated[
        Price, Meta(description="what is usual for 1,000,000 tokens in")
    ] = 15_000_000
    output_price_ucr: Annotated[
        Price, Meta(description="what is usual for 1,000,000 tokens out")
    ] = 60_000_000


class Gpu(Table, frozen=True, kw_only=True):
    """A class of machines: how fast a model of work_permille = 1000 runs on it."""

    name: Annotated[Name, Meta(description="its name")]
    prefill_tokens_per_s: Annotated[int, Meta(ge=1, le=10**7, description="prompt tokens")]
    decode_tokens_per_s: Annotated[
        int, Meta(ge=1, le=10**5, description="output tokens of one job alone")
    ]
    places: Annotated[int, Meta(ge=1, le=limits.ENGINE_PLACES_MAX, description="jobs at once")]
    slowdown_permille: Annotated[
        int, Meta(ge=0, le=10_000, description="what each further job adds to a token's time")
    ]
    overhead_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="before a prompt is looked at")
    ] = 10
    cost_ucr_per_hour: Annotated[Price, Meta(description="what running it costs its owner")]


GPUS: Final = (
    Gpu(
        name="laptop",
        prefill_tokens_per_s=400,
        decode_tokens_per_s=20,
        places=2,
        slowdown_permille=500,
        overhead_ms=30,
        cost_ucr_per_hour=500_000,
    ),
    Gpu(
        name="desktop",
        prefill_tokens_per_s=3_000,
        decode_tokens_per_s=70,
        places=4,
        slowdown_permille=150,
        overhead_ms=15,
        cost_ucr_per_hour=3_000_000,
    ),
    Gpu(
        name="datacenter",
        prefill_tokens_per_s=15_000,
        decode_tokens_per_s=110,
        places=16,
        slowdown_permille=40,
        overhead_ms=10,
        cost_ucr_per_hour=25_000_000,
    ),
)


class Providers(Table, frozen=True, kw_only=True):
    """Nodes that sell."""

    name: Annotated[Name, Meta(description="the group's name")] = "providers"
    count: Annotated[int, Meta(ge=1, le=100_000, description="how many")] = 12
    models: Annotated[
        tuple[Name, ...], Meta(max_length=64, description="what each sells; empty: one, by turns")
    ] = ()
    gpu: Annotated[Name, Meta(description="laptop, desktop, datacenter, or one of [[gpus]]")] = (
        "desktop"
    )
    speed_spread_permille: Annotated[
        Permille, Meta(description="how far speeds lie apart, as a part of the class's")
    ] = 200
    pricing: Annotated[
        Literal["fixed", "cost-plus", "load-based", "undercutting"],
        Meta(
            description="fixed: the usual price, spread; cost-plus: the GPU's cost and a margin; "
            "load-based: dearer when busy; undercutting: cheaper while losing, never under cost"
        ),
    ] = "fixed"
    price_permille: Annotated[
        int, Meta(ge=1, le=100_000, description="of the usual price, to start with")
    ] = 1_000
    price_spread_permille: Annotated[
        Permille, Meta(description="how far prices lie apart, as a part of the usual")
    ] = 200
    margin_permille: Annotated[
        int, Meta(ge=0, le=100_000, description="cost-plus: on top of cost")
    ] = 300
    load_permille: Annotated[
        int, Meta(ge=0, le=100_000, description="load-based: on top of the price when full")
    ] = 1_000
    undercut_permille: Annotated[
        int, Meta(ge=0, le=999, description="undercutting: off the price after lost bids")
    ] = 30
    undercut_bids: Annotated[
        int, Meta(ge=1, le=10_000, description="undercutting: lost bids in a row until then")
    ] = 5
    bid_permille: Annotated[
        Permille, Meta(description="of the requests that each could serve, those it bids on")
    ] = 1_000


class Tokens(Table, frozen=True, kw_only=True):
    """How long texts are, in tokens: log-normal about a median, or fixed at it."""

    median: Annotated[int, Meta(ge=1, le=limits.OUTPUT_TOKENS_MAX, description="the median")]
    spread_permille: Annotated[
        int, Meta(ge=0, le=3_000, description="sigma of the logarithm, in 1/1000; 0: fixed")
    ] = 600
    max: Annotated[
        int, Meta(ge=1, le=limits.OUTPUT_TOKENS_MAX, description="longer ones are cut to this")
    ]


class Requesters(Table, frozen=True, kw_only=True):
    """Nodes that ask, and when."""

    name: Annotated[Name, Meta(description="the group's name")] = "requesters"
    count: Annotated[int, Meta(ge=1, le=100_000, description="how many")] = 8
    subscribed: Annotated[
        bool, Meta(description="they take part in gossip; else they only publish (fanout)")
    ] = True
    arrivals: Annotated[
        Literal["poisson", "bursts", "diurnal", "trace"],
        Meta(
            description="poisson; bursts (burst_size at once); diurnal (a sine of day_s); "
            "trace (a CSV: at_s[,input_tokens,output_tokens[,model]], beside the scenario)"
        ),
    ] = "poisson"
    requests_per_s: Annotated[
        float, Meta(gt=0, le=100_000, description="of the whole group, on average")
    ] = 1.0
    burst_size: Annotated[int, Meta(ge=1, le=100_000, description="requests of a burst")] = 10
    day_s: Annotated[int, Meta(ge=1, le=86_400 * 7, description="a day's length")] = 86_400
    day_swing_permille: Annotated[
        Permille, Meta(description="how far noon and midnight lie from the average")
    ] = 800
    trace: Annotated[str, Meta(description="the trace's path")] = ""
    models: Annotated[
        dict[Name, Annotated[int, Meta(ge=0, le=1_000_000)]],
        Meta(description="weights of the models asked for; empty: all alike"),
    ] = msgspec.field(default_factory=dict)
    input_tokens: Tokens = Tokens(median=200, max=2_000)
    output_tokens: Tokens = Tokens(median=100, max=512)
    text_spread_permille: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000,
            description="sigma of the logarithm of bytes a token, about 4, of one request against "
            "another: 80 within a language, 250 for code and languages mixed; 0: all 4",
        ),
    ] = 0
    notices_permille: Annotated[
        Permille,
        Meta(
            description="answers that no machine made, of which their reader says that it is bad"
        ),
    ] = 0
    output_allowance_permille: Annotated[
        int,
        Meta(ge=1_000, le=100_000, description="what is allowed for, over what it will be"),
    ] = 2_000
    price_weight: Annotated[
        int, Meta(ge=0, le=1_000, description="of price against latency in the ranking, in 1/1000")
    ] = 500
    reputation_weight: Annotated[
        int, Meta(ge=0, le=1_000, description="of reputation against those two, in 1/1000")
    ] = 0
    price_max_permille: Annotated[
        int, Meta(ge=1, le=100_000, description="cap, of what the worst case usually costs")
    ] = 2_000
    use_offers: Annotated[
        bool, Meta(description="standing offers are tried before an auction")
    ] = False
    race: Annotated[
        int, Meta(ge=1, le=limits.RACE_MAX, description="awards at once; the first text wins")
    ] = 1
    hedge_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="a second award when the first text is later than this much of what was "
            "promised; 0: never",
        ),
    ] = 0
    hedge_floor_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="and not before this time")
    ] = 1_000
    fallbacks: Annotated[
        bool, Meta(description="others take over from a provider that fails, before and in a job")
    ] = True
    bid_window_ms: Annotated[
        int, Meta(ge=10, le=10_000, description="how long bids are waited for")
    ] = 1_000
    early_close_bids: Annotated[
        int,
        Meta(
            ge=0, le=256, description="bids with which the window may end early; 0: it never does"
        ),
    ] = 3
    timeout_s: Annotated[int, Meta(ge=1, le=3_600, description="until the answer is done")] = 60
    deposit_ucr: Annotated[
        int, Meta(ge=0, le=10**15, description="of a new channel; raised to the worst case")
    ] = 1_000_000
    advance_ucr: Annotated[
        int, Meta(ge=0, le=10**15, description="A: most that is lent ahead of delivery")
    ] = 100_000
    budget_ucr: Annotated[
        int, Meta(ge=0, le=10**15, description="of each node for the whole run; 0: no limit")
    ] = 0
