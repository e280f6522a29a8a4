"""What a provider answers with: the bid's numbers, and each reason for silence.

Source: protocol/README.md, "Bids"; router/README.md, "Life of a job".
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.envelope import Signed
from protocol.errors import RemoteError
from protocol.fields import ChatMessage, InferenceType, Prompt
from protocol.messages import Bid
from protocol.units import NS_PER_MS, NS_PER_S, cost_ucr
from router.quoting import input_tokens_bucket, input_tokens_estimate, quote, window_ucr
from tests.router.support import ANYBODY, offer, stranger
from tests.router.test_auction import NOW_NS, make_request

PROMPTS = st.builds(
    Prompt,
    st.just(InferenceType.CHAT),
    st.lists(
        st.builds(ChatMessage, st.just("user"), st.text(max_size=3_000)), min_size=1, max_size=8
    ).map(tuple),
)


def make_quote(request: Signed, **changes: Any) -> Bid:
    """The bid of stranger(1) with the standard offer, 1,000,000 ucr of credit."""
    arguments: dict[str, Any] = {
        "offer": offer(),
        "request": request,
        "provider": stranger(1).public_key,
        "deposit_max_ucr": 1_000_000,
        "payee_salt": bytes(16),
        "addresses": ("/memory/1",),
        "now_ns": NOW_NS,
    }
    return quote(**(arguments | changes))


def silence(request: Signed, **changes: Any) -> str:
    """Why no bid is made; never an offence."""
    with pytest.raises(RemoteError) as caught:
        make_quote(request, **changes)
    assert not caught.value.penalize
    return caught.value.code


@given(PROMPTS)
def test_the_bucket_is_a_power_of_two_over_any_token_count(prompt: Prompt) -> None:
    """A byte-level tokenizer makes at most one token a byte, the template adds its own."""
    bucket = input_tokens_bucket(prompt)
    text_bytes = sum(len(message.content.encode()) for message in prompt.messages)
    bound = text_bytes + limits.TEMPLATE_TOKENS_MAX
    assert bucket & (bucket - 1) == 0
    assert bucket >= max(512, bound)
    assert bucket < 4 * max(512, bound)


@pytest.mark.parametrize(
    ("text_bytes", "bucket"),
    [(0, 512), (248, 512), (249, 1024), (760, 1024), (761, 2048), (262_144, 524_288)],
)
def test_bucket_edges(text_bytes: int, bucket: int) -> None:
    """One message costs 8 and the template 256: 248 bytes of text fill 512 exactly."""
    prompt = Prompt(InferenceType.CHAT, (ChatMessage("user", "x" * text_bytes),))
    assert input_tokens_bucket(prompt) == bucket


@given(PROMPTS)
def test_the_estimate_never_exceeds_the_bucket(prompt: Prompt) -> None:
    """The first voucher never pays for more prompt than the request announced."""
    assert 0 < input_tokens_estimate(prompt) <= input_tokens_bucket(prompt)


def test_the_window_is_the_price_of_one_chunk() -> None:
    """L1: a newcomer can be served one chunk before it pays; free models still move by 1."""
    assert window_ucr(offer(output_price=60_000_000)) == cost_ucr(0, 32, 0, 60_000_000) == 1_920
    assert window_ucr(offer(output_price=0)) == 1


def test_a_bid_states_the_offer() -> None:
    """Prices and digest of the offer; prefill time grows with the announced prompt."""
    bid = make_quote(make_request())
    assert (bid.input_price_ucr, bid.output_price_ucr) == (15_000_000, 60_000_000)
    assert bid.model_digest == offer().digest
    assert bid.ttft_ns == 20 * NS_PER_MS + 10_000 * 512
    assert bid.terms.window_ucr == 1_920
    assert bid.terms.deposit_max_ucr == 1_000_000
    assert bid.expires_at_ns == NOW_NS + limits.BID_LIFETIME_NS


def test_a_bid_never_outlives_the_deadline() -> None:
    """A promise past the deadline would be no use to either."""
    bid = make_quote(make_request(deadline_ns=NOW_NS + 10 * NS_PER_S))
    assert bid.expires_at_ns == NOW_NS + 10 * NS_PER_S


def test_reasons_for_silence() -> None:
    """Each rule of `quote` at its edge."""
    assert silence(make_request(deadline_ns=NOW_NS)) == "request.expired"
    others = replace(ANYBODY, providers_only=(stranger(2).public_key,))
    assert silence(make_request(filters=others)) == "bid.unacceptable"
    ignored = replace(ANYBODY, providers_ignored=(stranger(1).public_key,))
    assert silence(make_request(filters=ignored)) == "bid.unacceptable"
    file = replace(ANYBODY, model_digest=bytes([9]) * 32)
    assert silence(make_request(filters=file)) == "bid.unacceptable"
    wide = {"price_max_ucr": 10**9}
    assert silence(make_request(output_tokens_max=2_048, **wide)) == "bid.unacceptable"
    make_quote(make_request(output_tokens_max=2_047, **wide))
    make_quote(make_request(price_max_ucr=13_680))
    assert silence(make_request(price_max_ucr=13_679)) == "request.price_too_low"
    make_quote(make_request(), deposit_max_ucr=13_680)
    assert silence(make_request(), deposit_max_ucr=13_679) == "channel.over_limit"
    taken_ns = 20 * NS_PER_MS + 10_000 * 512 + 2 * NS_PER_S
    far_ns = NOW_NS + limits.DEADLINE_NS_MAX
    make_quote(make_request(deadline_ns=far_ns))
    assert silence(make_request(deadline_ns=far_ns + 1)) == "bid.unacceptable"
    make_quote(make_request(deadline_ns=NOW_NS + taken_ns))
    assert silence(make_request(deadline_ns=NOW_NS + taken_ns - 1)) == "bid.too_slow"
