"""What an award could have been: the chosen seller against all, as nobody in the market sees them.

Reads what sellers would promise at that moment and scores it as requesters do; changes nothing.
Rule: protocol/README.md, "Ranking".
"""

from collections.abc import Mapping

from protocol.units import cost_ucr
from router.actions import Ask, ModelOffer
from router.auction import NS_MILLI_TOKENS, SCORE_UNIT
from router.quoting import input_tokens_bucket
from simnet.market.pricing import Seller


def regret_permille(ask: Ask, provider: int, sellers: Mapping[int, Seller]) -> int:
    """How much worse the provider's score is than the best; 0 for who is no seller."""
    scores = {
        index: score(ask, seller.offer(model, b""))
        for index, seller in sellers.items()
        for model in seller.models
        if model.name == ask.model
    }
    if provider not in scores:
        return 0
    best = min(scores.values())
    return (scores[provider] - best) * 1_000 // max(1, best)


def score(ask: Ask, offer: ModelOffer) -> int:
    """What a bid with this offer would score; lower is better."""
    tokens, output_tokens = input_tokens_bucket(ask.prompt), ask.parameters.output_tokens_max
    cost = cost_ucr(tokens, output_tokens, offer.input_price_ucr, offer.output_price_ucr)
    latency_ns = offer.ttft_ns + tokens * offer.ttft_ns_per_input_token
    latency_ns += output_tokens * NS_MILLI_TOKENS // offer.tokens_per_s_milli
    price_part = ask.strategy.price_weight * cost * SCORE_UNIT // max(1, ask.price_max_ucr)
    return price_part + ask.strategy.latency_weight * latency_ns * SCORE_UNIT // ask.timeout_ns
