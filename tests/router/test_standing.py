"""Standing offers: awarded at once, held to like bids, and an auction when they come to nothing.

Source: router/README.md, "Standing offers"; protocol/README.md, "Standing offers".
"""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.envelope import Signed, sign_envelope
from protocol.errors import RemoteError
from protocol.fields import Strategy
from protocol.messages import Bid, DirectRequest, Request, StandingOffer
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router import events
from router.auction import ScoredBid, check_bid, score
from router.offers import OfferBook
from router.quoting import standing_offer
from simnet.peer import Peer
from simnet.world import EPOCH_NS, World
from tests.router.support import (
    MODEL,
    awarded_to,
    channels,
    codes_against,
    failure,
    frame_of,
    key_of,
    make_ask,
    make_world,
    offer,
    only,
    retried,
    same_totals,
    stranger,
    succeeded,
    tamper,
    when_job_starts,
)

NETWORK = "sim"


def offering(providers: int = 2, requesters: int = 1) -> World:
    """A world whose offers, said again, have reached everybody."""
    world = make_world(providers, requesters, standing_offers=True)
    world.run(limits.OFFER_REFRESH_NS + NS_PER_S)
    return world


def ask_direct(number: int = 1, **changes: Any) -> act.Ask:
    """Price alone counts, so that one offer is clearly the best."""
    return make_ask(number, **{"use_offers": True, "strategy": Strategy(1_000, 0), **changes})


def bids_seen(peer: Peer) -> list[Any]:
    return peer.heard(events.BidSeen)


def first_text_ns(peer: Peer) -> int:
    return int(peer.heard(events.Text)[0].at_ns)


def test_an_award_without_an_auction() -> None:
    """The cheapest serves, nobody bids, and the first text comes before a window could end."""
    world = offering()
    _, cheapest, requester = world.peers
    world.give(requester, ask_direct(tokens=400))
    world.run(20 * NS_PER_S)
    assert succeeded(requester)
    assert awarded_to(requester) == [key_of(cheapest)]
    assert not bids_seen(requester)
    assert first_text_ns(requester) < make_ask().bid_window_ns
    assert same_totals(requester, cheapest)


def test_an_offer_serves_more_than_one_job_on_one_channel() -> None:
    world = offering(1)
    provider, requester = world.peers
    for number in (1, 2, 3):
        world.give(requester, ask_direct(number))
    world.run(10 * NS_PER_S)
    assert all(succeeded(requester, number) for number in (1, 2, 3))
    assert len(channels(provider)) == 1
    assert same_totals(requester, provider)


def test_a_refusal_leads_to_the_auction() -> None:
    """The one offer is for a place that is gone: the same request is published, and served."""
    world = offering(2)
    dear, cheapest, requester = world.peers
    world.give(cheapest, act.Drain())
    world.give(requester, ask_direct(tokens=400, filters=only(cheapest, dear)))
    world.run(20 * NS_PER_S)
    assert "provider.draining" in retried(requester)
    assert awarded_to(requester)[-1] == key_of(dear)
    assert succeeded(requester)
    assert len(requester.heard(events.Published)) == 1


def test_why_the_offer_failed_is_said_where_nobody_bids() -> None:
    world = offering(1)
    provider, requester = world.peers
    world.give(provider, act.Drain())
    world.give(requester, ask_direct())
    world.run(20 * NS_PER_S)
    assert failure(requester) == "provider.draining"


def test_nothing_fits_so_there_is_an_auction() -> None:
    """A cap under the offers' prices: the request is published at once."""
    world = offering(1)
    requester = world.peers[-1]
    world.give(requester, ask_direct(price_max_ucr=1))
    world.run(10 * NS_PER_S)
    assert not awarded_to(requester)
    assert not succeeded(requester)


def test_an_offer_ends() -> None:
    """A provider that fell silent is not awarded directly once its offer's time is over; that
    models are sold is known for a while yet, and which."""
    world = offering(1)
    provider, requester = world.peers
    book = requester.node.requester.offers
    world.crash(provider)
    world.run(limits.OFFER_LIFETIME_NS)
    assert book.listed(world.clock.now_ns) == []
    book.expire(world.clock.now_ns)
    assert [book.is_unknown(name, world.clock.now_ns) for name in (MODEL, "m2")] == [False, True]


def test_offers_are_said_again_before_they_end() -> None:
    world = offering(1)
    requester = world.peers[-1]
    world.run(10 * limits.OFFER_LIFETIME_NS)
    (listed,) = requester.node.requester.offers.listed(world.clock.now_ns)
    assert (listed.model, listed.providers) == (MODEL, 1)


def test_news_is_not_said_more_often_than_the_interval() -> None:
    """The engine's promises change all the time; the topic hears of it every 5 s at most."""
    world = make_world(1, standing_offers=True)
    provider, _ = world.peers
    assert provider.engine is not None
    said = 0

    def count(peer: Peer, actions: list[act.Action]) -> None:
        nonlocal said
        said += sum(isinstance(action, act.Publish) for action in actions)

    world.after_step = count
    for step in range(300):
        promise = replace(provider.engine.offer, ttft_ns=step * NS_PER_MS)
        world.give(provider, act.OffersChanged((promise,)))
        world.run(100 * NS_PER_MS)
    assert 5 <= said <= 7


# --- requests that come to collect ---------------------------------------------------------


def test_another_s_request_is_an_offence() -> None:
    """Who passes on somebody else's signed request could make it pay."""
    world = offering(1)
    provider, requester = world.peers
    thief = stranger()
    served: list[bytes] = []
    when_job_starts(world, provider, served.append)

    def steal(message: DirectRequest) -> DirectRequest:
        request = make_request(ask_direct(), EPOCH_NS)
        forged = sign_envelope(thief, NETWORK, request.message, world.clock.now_ns)
        return DirectRequest(forged.data)

    tamper(world, requester, DirectRequest, steal)
    world.give(requester, ask_direct())
    world.run(100 * NS_PER_MS)
    assert codes_against(provider, requester) == ["award.bad_signature"]
    assert not served


def test_an_award_without_its_request_is_refused() -> None:
    world = offering(1)
    provider, requester = world.peers
    tamper(world, requester, DirectRequest, lambda _: None)
    world.give(requester, ask_direct())
    world.run(10 * NS_PER_S)
    assert retried(requester)[0] == "award.unknown_bid"
    assert not provider.penalized
    assert succeeded(requester)


def test_a_job_that_was_not_offered_is_refused() -> None:
    """More output than the model's context: a provider would not have bid."""
    world = offering(1)
    provider, requester = world.peers
    bad = make_request(ask_direct(tokens=100_000), world.clock.now_ns, requester)

    def inflate(message: DirectRequest) -> bytes:
        return frame_of(DirectRequest(bad.data))

    served: list[bytes] = []
    when_job_starts(world, provider, served.append)
    tamper(world, requester, DirectRequest, inflate)
    world.give(requester, ask_direct())
    world.run(200 * NS_PER_MS)
    assert retried(requester)[0] == "award.unknown_bid"
    assert not served


# --- the book ------------------------------------------------------------------------------


def make_request(ask: act.Ask, now_ns: int, sender: Peer | None = None) -> Signed:
    request = Request(
        model=ask.model,
        inference_type=ask.prompt.inference_type,
        input_tokens_max=512,
        output_tokens_max=ask.parameters.output_tokens_max,
        price_max_ucr=ask.price_max_ucr,
        deadline_ns=now_ns + ask.timeout_ns,
        bid_window_ns=ask.bid_window_ns,
        strategy=ask.strategy,
        filters=ask.filters,
        redundancy=1,
        ephemeral_key=bytes(32),
        addresses=(),
        prompt_commitment=bytes(32),
    )
    signer = sender.signer if sender is not None else stranger(1)
    return sign_envelope(signer, NETWORK, request, now_ns)


def said(number: int, sent_ns: int, *, price: int = 60_000_000, life_ns: int = 0) -> Signed:
    standing = standing_offer(
        offer(output_price=price),
        places=1,
        deposit_max_ucr=10**7,
        payee_salt=bytes(16),
        addresses=(),
        expires_at_ns=sent_ns + (life_ns or limits.OFFER_LIFETIME_NS),
    )
    return sign_envelope(stranger(number), NETWORK, standing, sent_ns)


def code_of(book: OfferBook, signed: Signed, now_ns: int) -> str:
    try:
        book.take(signed, now_ns)
    except RemoteError as error:
        return "offence" if error.penalize else error.code
    return ""


def candidates(book: OfferBook, request: Signed, now_ns: int) -> list[ScoredBid]:
    """Those that the request alone would take."""

    def weigh(signed: Signed, bid: Bid) -> tuple[ScoredBid, str]:
        scored = score(request, signed, bid)
        check_bid(request, scored, now_ns)
        return scored, ""

    return book.candidates(request, b"", weigh)


def test_the_newest_offer_counts() -> None:
    book, now = OfferBook(), EPOCH_NS
    newer, older = said(5, now + 2, price=9), said(5, now + 1, price=8)
    assert code_of(book, newer, now + 3) == ""
    assert code_of(book, older, now + 3) == "envelope.stale"
    (best,) = candidates(book, make_request(ask_direct(), now), now + 3)
    assert best.bid.output_price_ucr == 9
    assert len(book) == 1


def test_a_lifetime_beyond_the_rule_is_not_kept() -> None:
    book, now = OfferBook(), EPOCH_NS
    assert code_of(book, said(1, now, life_ns=limits.OFFER_LIFETIME_NS + 1), now) != ""
    assert code_of(book, said(1, now, life_ns=5), now + 5) != ""
    assert len(book) == 0


def test_the_book_is_bounded(monkeypatch: Any) -> None:
    """Full of fresh offers it takes no more; what ended makes room."""
    monkeypatch.setattr(limits, "OFFERS_KEPT_MAX", 3)
    book, now = OfferBook(), EPOCH_NS
    for number in range(3):
        assert code_of(book, said(number, now), now) == ""
    assert code_of(book, said(3, now), now) == "admission.full"
    later = now + limits.OFFER_LIFETIME_NS
    assert code_of(book, said(3, later), later) == ""
    assert len(book) == 1


@given(st.lists(st.integers(1, 80_000_000), min_size=1, max_size=8), st.integers(0, 2**32))
def test_a_clearly_worse_offer_is_never_first(prices: list[int], salt: int) -> None:
    """Who is as good as the best is drawn by hash, and nobody else is in the draw."""
    book, now = OfferBook(), EPOCH_NS + salt
    for number, price in enumerate(prices):
        book.take(said(number, now, price=price), now)
    request = make_request(ask_direct(), now)
    found = candidates(book, request, now)
    assert len(found) == len(prices)
    least = min(scored.score for scored in found)
    assert found[0].score <= least + least * 50 // 1_000
    assert isinstance(found[0].signed.message, StandingOffer)
