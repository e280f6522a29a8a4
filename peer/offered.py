"""What can be bought on the market now, by what providers gossip."""

from dataclasses import dataclass

from peer.daemon import Daemon


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for, as /v1/models lists it. Prices a million tokens, in ucr."""

    name: str
    providers: int
    context_tokens: int
    input_price_ucr: int
    output_price_ucr: int
    quantizations: tuple[str, ...]


def offered_models(daemon: Daemon) -> list[Model]:
    """What others offer on the topic now, at the lowest prices: a node never buys its own."""
    now_ns = daemon.node.context.now_ns
    return [
        Model(
            name=listed.model,
            providers=listed.providers,
            context_tokens=listed.context_tokens,
            input_price_ucr=listed.input_price_ucr,
            output_price_ucr=listed.output_price_ucr,
            quantizations=listed.quantizations,
        )
        for listed in daemon.node.requester.offers.listed(now_ns)
    ]
