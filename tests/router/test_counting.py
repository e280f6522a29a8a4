"""Who counts more tokens for the same text: what is taken as such, and what it costs its bids.

Source: router/README.md, "Counts".
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.fields import ChatMessage, InferenceType, Prompt, Strategy
from protocol.limits import EMPTY_TOKENS_MAX
from protocol.messages import Chunk
from protocol.transcript import transcript_next
from protocol.units import NS_PER_S, cost_ucr
from router import events
from router.auction import ScoredBid, rank, score
from router.choosing import Choice
from router.counting import (
    AS_OTHERS,
    BYTES_KEPT,
    FACTOR_MILLI_MAX,
    MILLI,
    TEXT_BYTES_COUNTED,
    Counted,
    Counts,
    input_tokens_most,
    output_tokens_most,
    usual_milli,
)
from router.quoting import input_tokens_bucket
from router.reputation import HALF_LIFE_NS
from simnet.peer import Peer
from tests.router.support import (
    MODEL,
    channels,
    codes_against,
    complete,
    engine,
    failure,
    make_ask,
    make_world,
    stranger,
    succeeded,
)
from tests.router.test_auction import make_bid, make_request
from tests.router.test_choosing import job_for, selection
from tests.router.test_dishonest_provider import lie_at, signed_chunk
from tests.router.test_reputation import judged, standing_of

# Bytes a token of English with tables, Python, German, Russian, Chinese, C and JSON, by llama.cpp
# with the vocabulary of Llama 3; and how far texts of one kind lie apart.
KINDS = (3.28, 4.20, 2.23, 3.50, 2.61, 3.66, 2.33)
SPREAD = 0.08


def counted(texts: Sequence[tuple[int, int]]) -> Counted:
    found = Counted()
    for tokens, text_bytes in texts:
        found.add(tokens, text_bytes)
    return found


@pytest.mark.parametrize(
    ("times_milli", "texts", "factor"),
    [
        (1_500, 0, 1_000),
        (1_500, 2, 1_000),  # two texts prove nothing
        (1_500, 4, 1_250),
        (1_500, 12, 1_375),
        (1_500, 64, 1_470),
        (1_150, 64, 1_000),  # within what is tolerated
        (500, 64, 1_000),  # who counts less has no more than its price for it
        (3_000, 1, 1_400),
        (50_000, 64, 8_000),
    ],
)
def test_factors(times_milli: int, texts: int, factor: int) -> None:
    """Of KiBs of text, when others count 250 tokens for one."""
    text = (250 * times_milli // MILLI, TEXT_BYTES_COUNTED)
    assert counted([text] * texts).factor_milli(250 * MILLI) == factor
    assert counted([text] * texts).factor_milli(0) == MILLI


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=80),
    st.integers(0, 10**7),
)
def test_bounds(texts: list[tuple[int, int]], usual: int) -> None:
    """Whatever is claimed; an empty text and a text of no tokens say nothing."""
    found = counted(texts)
    assert 0 <= found.text_bytes <= BYTES_KEPT
    assert MILLI <= found.factor_milli(usual) <= FACTOR_MILLI_MAX
    before = (found.tokens_milli, found.text_bytes)
    found.add(0, 500)
    found.add(500, 0)
    assert (found.tokens_milli, found.text_bytes) == before


@given(st.lists(st.integers(200, 300), min_size=3, max_size=9), st.data())
def test_a_minority_of_liars_does_not_set_what_is_usual(honest: list[int], data: Any) -> None:
    """It stays within what the honest count, whatever fewer others claim."""
    claims = st.integers(1, 10**6)
    lies = data.draw(st.lists(claims, max_size=len(honest) - 1))
    counts = [counted([(tokens, TEXT_BYTES_COUNTED)] * 8) for tokens in honest + lies]
    assert min(honest) * MILLI <= usual_milli(counts) <= max(honest) * MILLI
    assert usual_milli(counts[:2]) == 0  # of two, nobody knows who lies
    assert usual_milli([counted([(tokens, 1_024)] * 3) for tokens in honest]) == 0


def texts_of(rng: Random, jobs: int, times: float = 1.0) -> list[tuple[int, int]]:
    """Answers of any kind, some 400 bytes each."""
    texts = []
    for _ in range(jobs):
        text_bytes = int(400 * math.exp(0.6 * rng.gauss(0, 1)))
        bytes_per_token = rng.choice(KINDS) * math.exp(SPREAD * rng.gauss(0, 1))
        texts.append((max(1, int(text_bytes / bytes_per_token * times)), text_bytes))
    return texts


@pytest.mark.parametrize(("jobs", "caught_percent"), [(16, 85), (32, 95)])
def test_who_sells_texts_of_other_kinds_is_not_taken_for_a_liar(
    jobs: int, caught_percent: int
) -> None:
    """Code, prose and languages at random to six sellers: under 1 % of the honest are held to
    count more, none of them 1.3 times; of those that count 1.5 times most are found."""
    rng, honest, liars = Random(7), [], []
    for _ in range(120):
        market = [counted(texts_of(rng, jobs)) for _ in range(5)]
        market.append(counted(texts_of(rng, jobs, 1.5)))
        usual = usual_milli(market)
        *some, liar = (one.factor_milli(usual) for one in market)
        honest += some
        liars.append(liar)
    assert sum(factor > MILLI for factor in honest) * 100 < len(honest)
    assert max(honest) < 1_300
    assert sum(factor > 1_200 for factor in liars) * 100 >= caught_percent * len(liars)


# --- in a ranking ----------------------------------------------------------------------------

FACTORS = st.builds(Counts, st.integers(1_000, 8_000), st.integers(1_000, 8_000))
SELLER = st.tuples(st.integers(0, 10**8), st.integers(0, 10**8), st.integers(0, 10**10), FACTORS)


def measures(bid: ScoredBid) -> tuple[int, int, int]:
    return bid.score, bid.effective_ucr, bid.latency_ns


DEAR, FAIR = (10**8, 10**8, 0, Counts(8_000, 1_000)), (10**8, 10**8, 0, AS_OTHERS)


@given(st.lists(SELLER, min_size=2, max_size=6), st.integers(0, 1_000))
@example([DEAR, FAIR], 0)
@example([FAIR, DEAR], 0)
def test_a_bid_dominated_in_all_that_it_promises_and_counts_never_wins(
    sellers: list[tuple[int, int, int, Counts]], price: int
) -> None:
    """No loser is at least as good in prices, speed and counts, and somewhere better."""
    request = make_request(strategy=Strategy(price, 1_000 - price))
    bids, promises = [], {}
    for number, (input_price, output_price, ttft_ns, counts) in enumerate(sellers, 1):
        prices = {"input_price_ucr": input_price, "output_price_ucr": output_price}
        bid = make_bid(request, stranger(number), ttft_ns=ttft_ns, **prices)
        bids.append(score(request, bid.signed, bid.bid, counts))
        costs = (input_price * counts.input_milli, output_price * counts.output_milli)
        promises[bids[-1].tie] = (*costs, ttft_ns, counts.output_milli)
    first = rank(bids)[0]
    for other in bids:
        mine, its = promises[first.tie], promises[other.tie]
        better = all(one <= two for one, two in zip(its, mine, strict=True)) and its != mine
        # Where rounding to whole ucr and points makes them equal, nobody is the better one.
        assert not better or measures(other) == measures(first)


@pytest.mark.parametrize(("price_milli", "wins"), [(980, False), (720, False), (680, True)])
def test_who_counts_more_has_to_be_cheaper_by_as_much(price_milli: int, wins: bool) -> None:
    """Of five known sellers one counts 1.5 times: by what is known of it 1.43, so a price below
    1/1.43 wins. Its cap and its bill stay those of its bid; a market filter sees through it."""
    selecting, context = selection()
    for number in range(1, 6):
        tokens = 384 if number == 5 else 256
        of = {"provider": stranger(number).public_key, "model": MODEL}
        for _ in range(24):
            counts = {"output_tokens": tokens, "text_bytes": 1_024, "input_tokens": 256}
            context.ledger.apply(judged(**of, **counts, prompt_bytes=896))
    job = job_for(Choice(), Strategy(1_000, 0))
    selecting.begin(job)
    bids = []
    for number in range(1, 6):
        price = 60_000_000 * price_milli // MILLI if number == 5 else 60_000_000
        bid = make_bid(job.request, stranger(number), input_price_ucr=0, output_price_ucr=price)
        bids.append(selecting.weigh(job, bid.signed, bid.bid)[0])
    liar = bids[4]
    assert (rank(bids)[0] is liar) is wins
    assert liar.counts == Counts(1_000, 1_428)
    assert [bid.counts for bid in bids[:4]] == [AS_OTHERS] * 4
    assert liar.cost_max_ucr == cost_ucr(0, 100, 0, liar.bid.output_price_ucr)
    assert liar.effective_ucr == cost_ucr(0, 142, 0, liar.bid.output_price_ucr)


@pytest.mark.parametrize(
    ("favours_newcomers", "known", "price_milli", "wins"),
    [
        (True, 1, 1_200, True),
        (True, 1, 1_300, False),  # no dearer than what would go unnoticed
        (True, 3, 1_200, True),  # two of the three may lie
        (True, 4, 1_200, False),  # enough to compare
        (False, 1, 1_200, False),
    ],
)
def test_one_request_in_eight_finds_out_how_others_count(
    favours_newcomers: bool, known: int, price_milli: int, wins: bool
) -> None:
    """Who always buys from the best learns nothing of the rest, and can't tell a liar."""
    selecting, context = selection()
    for number in range(1, 1 + known):
        of = {"provider": stranger(number).public_key, "model": MODEL}
        for _ in range(4):
            context.ledger.apply(judged(**of, output_tokens=256, text_bytes=1_024))
    job = job_for(Choice(), Strategy(1_000, 0), favours_newcomers=favours_newcomers)
    selecting.begin(job)
    bids = []
    for number, price in ((1, 60_000_000), (9, 60_000 * price_milli)):
        bid = make_bid(job.request, stranger(number), input_price_ucr=0, output_price_ucr=price)
        bids.append(selecting.weigh(job, bid.signed, bid.bid)[0])
    assert (rank(bids)[0] is bids[1]) is wins


def test_what_was_counted_long_ago_counts_less() -> None:
    """It fades like all else that is known, and a log knows it again."""
    world = make_world()
    provider, requester = world.peers
    world.give(requester, make_ask())
    world.run(5 * NS_PER_S)
    standing = standing_of(requester, provider)
    text = "".join(one.text for one in requester.heard(events.Text))
    assert (standing.made.tokens_milli, standing.made.text_bytes) == (40_000, len(text))
    assert (standing.read.tokens_milli, standing.read.text_bytes) == (12_000, 2 + 128)
    standing.judge(judged(judged_at_ns=standing.updated_at_ns + HALF_LIFE_NS))
    assert (standing.made.tokens_milli, standing.made.text_bytes) == (20_000, len(text) // 2)


# --- what no text can hold -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beyond", "code"), [(0, "chunk.out_of_order"), (1, "chunk.too_many_tokens")]
)
def test_a_chunk_of_more_tokens_than_its_text_holds_is_an_offence(beyond: int, code: str) -> None:
    """At the bound it is taken, and what follows is checked; a token more is refused, unpaid."""
    world = make_world(2)
    _, liar, requester = world.peers
    stop = ("END",)

    def lie(_: Peer, chunk: Chunk) -> Any:
        tokens = output_tokens_most(len(chunk.text), stop) + beyond
        due = cost_ucr(chunk.input_tokens, tokens, 15_000_000, 50_000_000)
        told = (chunk.input_tokens, tokens, due)
        start = world_start(requester)
        transcript = transcript_next(start, 1, chunk.text, *told)
        changed = {"output_tokens": tokens, "due_ucr": due, "transcript": transcript}
        made = signed_chunk(liar, chunk, **changed)
        return made if beyond else (made, made)

    lie_at(world, liar, 1, lie)
    ask = make_ask(tokens=200)
    world.give(requester, replace(ask, parameters=replace(ask.parameters, stop=stop)))
    world.run(20 * NS_PER_S)
    assert codes_against(requester, liar) == [code]


def world_start(requester: Peer) -> bytes:
    """The transcript of the lane that runs, before its first chunk."""
    (attempt,) = requester.node.requester.delivery.attempts.of(channels(requester)[0])
    return attempt.transcript


def test_an_honest_provider_bills_no_text_that_nobody_sees() -> None:
    """As a remote service counts thoughts: the job is done, 64 tokens are billed."""
    world = make_world(0, 0)
    provider = world.add(replace(engine(), text=""))
    requester = world.add()
    complete(world, requester, 1, tokens=200)
    assert not codes_against(requester, provider)
    (done,) = requester.heard(events.Done)
    assert done.output_tokens == EMPTY_TOKENS_MAX


@pytest.mark.parametrize("beyond", [False, True])
def test_a_prompt_of_more_tokens_than_its_text_ends_at_the_provider(beyond: bool) -> None:
    """`award.prompt_too_large`, before anything is billed; no offence."""
    prompt = Prompt(InferenceType.CHAT, (ChatMessage("user", "x" * 5_000),))
    most = input_tokens_most(5_000, 1)
    assert most < input_tokens_bucket(prompt)
    world = make_world(0, 0)
    world.add(engine(input_tokens=most + beyond))
    requester = world.add()
    world.give(requester, make_ask(prompt=prompt, advance_max_ucr=10**6))
    world.run(20 * NS_PER_S)
    assert succeeded(requester) is not beyond
    assert not beyond or failure(requester) == "award.prompt_too_large"


def test_a_prompt_that_is_billed_as_more_than_its_text_is_an_offence() -> None:
    """Also where the request announced more, which it rounds up."""
    prompt = Prompt(InferenceType.CHAT, (ChatMessage("user", "x" * 5_000),))
    world = make_world(2)
    _, liar, requester = world.peers
    lied = input_tokens_most(5_000, 1) + 1
    lie_at(world, liar, 1, lambda p, c: signed_chunk(p, c, input_tokens=lied))
    world.give(requester, make_ask(prompt=prompt, advance_max_ucr=10**6))
    world.run(20 * NS_PER_S)
    assert codes_against(requester, liar) == ["chunk.too_many_tokens"]
