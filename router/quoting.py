"""What a provider answers a request with: a bid, or silence and the reason for it. Pure.

A bid that can't win is not sent: a storm of hopeless bids is how such a market fails.
"""

from protocol import limits
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.fields import ChannelTerms, InferenceType, Prompt
from protocol.messages import Bid, Request, StandingOffer
from protocol.units import cost_ucr
from router.actions import ModelOffer
from router.auction import expected_latency_ns, patience_ns
from router.counting import input_tokens_most


def text_bytes(prompt: Prompt) -> int:
    """Of all its messages."""
    return sum(len(message.content.encode()) for message in prompt.messages)


def input_tokens_bound(prompt: Prompt) -> int:
    """More tokens than a prompt can have: a byte-level tokenizer never makes more than there are
    bytes, and a template adds its own."""
    return text_bytes(prompt) + limits.TEMPLATE_TOKENS_MAX + 8 * len(prompt.messages)


def input_tokens_bucket(prompt: Prompt) -> int:
    """The bound that a request states for a prompt: a power of two, at least 512, which tells
    gossip little about the prompt."""
    bound = input_tokens_bound(prompt)
    return min(limits.INPUT_TOKENS_MAX, max(512, 1 << (bound - 1).bit_length()))


def input_tokens_allowed(prompt: Prompt, request: Request) -> int:
    """The most tokens that a job may bill for its prompt: what the request states, and what the
    prompt can have."""
    most = input_tokens_most(text_bytes(prompt), len(prompt.messages))
    return min(request.input_tokens_max, most)


def input_tokens_estimate(prompt: Prompt) -> int:
    """A likely prompt length, for the first voucher: paying the bound would be lending money.

    When it is too low, the provider asks for the difference before the first chunk.
    """
    return text_bytes(prompt) // 2 + 8 * len(prompt.messages)


def input_tokens_least(prompt: Prompt) -> int:
    """What a prompt makes at least in practice: tokenizers pack 3 to 5 bytes of text into a
    token, over a whole prompt never 8."""
    return text_bytes(prompt) // 8


def window_ucr(offer: ModelOffer) -> int:
    """W for a newcomer: the price of one full chunk."""
    return max(1, cost_ucr(0, limits.CHUNK_TOKENS_MAX, 0, offer.output_price_ucr))


def quote(
    offer: ModelOffer,
    request: Signed,
    provider: bytes,
    *,
    deposit_max_ucr: int,
    payee_salt: bytes,
    addresses: tuple[str, ...],
    now_ns: int,
    carried_ucr: int = 0,
) -> Bid:
    """The bid for `request`; an open channel with its sender carries `carried_ucr` more.

    RemoteError, not an offence, is the reason for silence:
    `bid.unacceptable`, `bid.too_slow`, `request.price_too_low`, `channel.over_limit`,
    `request.expired`, `provider.busy`, `engine.no_embeddings`.
    """
    standing = standing_offer(
        offer,
        places=offer.places,
        deposit_max_ucr=deposit_max_ucr,
        payee_salt=payee_salt,
        addresses=addresses,
        expires_at_ns=now_ns + limits.BID_LIFETIME_NS,
    )
    bid = bid_of(standing, request)
    check_request(standing, bid, request, provider, now_ns, carried_ucr)
    check_kind(offer, request.message)
    check_patience(offer, request.message, bid, now_ns)
    return bid


def check_request(
    offer: StandingOffer,
    bid: Bid,
    request: Signed,
    provider: bytes,
    now_ns: int,
    carried_ucr: int = 0,
) -> None:
    """Whether `provider` wants to serve `request` by this offer. RemoteError, not an offence:
    `bid.unacceptable`, `bid.too_slow`, `request.price_too_low`, `channel.over_limit`,
    `request.expired`.
    """
    ask: Request = request.message
    filters = ask.filters
    if ask.deadline_ns <= now_ns:
        raise RemoteError("request.expired", penalize=False)
    if ask.deadline_ns > now_ns + limits.DEADLINE_NS_MAX:
        raise RemoteError("bid.unacceptable", "the deadline is too far off", penalize=False)
    if filters.providers_only and provider not in filters.providers_only:
        raise RemoteError("bid.unacceptable", "not asked for", penalize=False)
    if provider in filters.providers_ignored:
        raise RemoteError("bid.unacceptable", "ignored", penalize=False)
    if filters.model_digest and filters.model_digest != offer.model_digest:
        raise RemoteError("bid.unacceptable", "another model file", penalize=False)
    if ask.output_tokens_max >= offer.context_tokens:
        raise RemoteError("bid.unacceptable", "more output than context", penalize=False)
    cost = cost_ucr(
        ask.input_tokens_max, ask.output_tokens_max, offer.input_price_ucr, offer.output_price_ucr
    )
    if cost > ask.price_max_ucr:
        raise RemoteError("request.price_too_low", penalize=False)
    if cost > max(offer.terms.deposit_max_ucr, carried_ucr):
        raise RemoteError("channel.over_limit", penalize=False)
    if now_ns + expected_latency_ns(bid, ask.output_tokens_max) > ask.deadline_ns:
        raise RemoteError("bid.too_slow", penalize=False)


def standing_offer(
    offer: ModelOffer,
    *,
    places: int,
    deposit_max_ucr: int,
    payee_salt: bytes,
    addresses: tuple[str, ...],
    expires_at_ns: int,
) -> StandingOffer:
    """What a provider says to anybody of a model that it serves."""
    return StandingOffer(
        model=offer.name,
        model_digest=offer.digest,
        context_tokens=offer.context_tokens,
        input_price_ucr=offer.input_price_ucr,
        output_price_ucr=offer.output_price_ucr,
        ttft_ns=offer.ttft_ns,
        ttft_ns_per_input_token=offer.ttft_ns_per_input_token,
        tokens_per_s_milli=max(1, offer.tokens_per_s_milli),
        places=places,
        expires_at_ns=expires_at_ns,
        terms=ChannelTerms(
            window_ucr=window_ucr(offer),
            deposit_max_ucr=deposit_max_ucr,
            lifetime_ns=limits.CHANNEL_LIFETIME_NS,
            challenge_ns=limits.CHALLENGE_NS,
        ),
        payee_salt=payee_salt,
        addresses=addresses,
        quantization=offer.quantization,
    )


def bid_of(offer: StandingOffer, request: Signed) -> Bid:
    """The bid for `request` that follows from an offer; both ends work out the same."""
    ask: Request = request.message
    return Bid(
        request_id=request.digest,
        model_digest=offer.model_digest,
        input_price_ucr=offer.input_price_ucr,
        output_price_ucr=offer.output_price_ucr,
        ttft_ns=min(
            limits.U63_MAX, offer.ttft_ns + offer.ttft_ns_per_input_token * ask.input_tokens_max
        ),
        tokens_per_s_milli=offer.tokens_per_s_milli,
        expires_at_ns=min(ask.deadline_ns, offer.expires_at_ns),
        terms=offer.terms,
        payee_salt=offer.payee_salt,
        addresses=offer.addresses,
        quantization=offer.quantization,
    )


def check_room(offer: ModelOffer, *, running: int, own: int) -> None:
    """RemoteError `provider.busy` when a job could neither start nor wait.

    `running` jobs of the model were taken, `own` of them from this requester: with all places
    taken, it has as many of the queue as it leaves free, at most.
    """
    free = offer.places - running
    if free <= 0 and free + offer.queue_jobs <= 0:
        raise RemoteError("provider.busy", "all places and the queue are full", penalize=False)
    if free <= 0 and own >= free + offer.queue_jobs:
        raise RemoteError("provider.busy", "its share of the queue is full", penalize=False)


def check_kind(offer: ModelOffer, ask: Request) -> None:
    """As `check_embeds`, of a request."""
    check_embeds(offer, ask.inference_type)


def check_embeds(offer: ModelOffer, wanted: InferenceType) -> None:
    """RemoteError `engine.no_embeddings`, no offence, when the model has none to give."""
    if wanted is InferenceType.EMBEDDING and not offer.embeds:
        raise RemoteError("engine.no_embeddings", penalize=False)


def check_patience(offer: ModelOffer, ask: Request, bid: Bid, now_ns: int) -> None:
    """RemoteError `provider.busy`, no offence, when the requester won't wait as long as a job
    would wait here now: before its bid, or with those that came since.

    Without the prompt's own reading: a request's bound is far above most prompts.
    """
    if offer.ttft_ns > min(patience_ns(bid), ask.deadline_ns - now_ns):
        raise RemoteError("provider.busy", "the queue is too long", penalize=False)
