"""Who is unknown or ejected, and what runs while a cap is counted.

Source: router/README.md, "Choosing".
"""

from dataclasses import replace

from protocol.fields import Outcome, Strategy
from router.auction import rank
from router.choosing import Choice, RequesterSettings
from router.job import Job
from router.progress import Progress
from router.selection import NEWCOMERS_EVERY
from tests.router.support import (
    MODEL,
    failure,
    make_ask,
    make_world,
    stranger,
)
from tests.router.test_auction import make_bid, make_request
from tests.router.test_choosing import job_for, selection
from tests.router.test_reputation import judged


def test_newcomers_win_now_and_then_where_reputation_counts() -> None:
    """In one request of eight or so, by its id; never one with failures on its record."""
    selecting, context = selection()
    known, new, failed = (stranger(number) for number in (1, 2, 3))
    for _ in range(12):
        context.ledger.apply(judged(provider=known.public_key, model=MODEL))
    context.ledger.apply(judged(Outcome.FAILED, provider=failed.public_key, model=MODEL))
    winners = []
    for number in range(400):
        request = make_request(prompt_commitment=number.to_bytes(32, "big"))
        ask = make_ask(choice=Choice(reputation_weight=1_000))
        job = Job(ask, request, bytes(32), bytes(32), Progress(ask, request.sent_at_ns))
        bids = [make_bid(request, signer) for signer in (known, new, failed)]
        weighed = [selecting.weigh(job, bid.signed, bid.bid)[0] for bid in bids]
        winners.append(rank(weighed)[0].signed.sender)
    share = winners.count(new.public_key)
    assert 400 // (2 * NEWCOMERS_EVERY) < share < 2 * 400 // NEWCOMERS_EVERY
    assert winners.count(known.public_key) == 400 - share


def test_an_ejected_provider_is_taken_when_it_is_asked_for_by_name() -> None:
    selecting, context = selection()
    liar = stranger(1)
    context.ledger.apply(judged(Outcome.LIED, provider=liar.public_key, model=MODEL))
    job = job_for(Choice(), Strategy(500, 500))
    bid = make_bid(job.request, liar)
    assert selecting.weigh(job, bid.signed, bid.bid)[1] == "bid.low_reputation"
    only = replace(job.ask.filters, providers_only=(liar.public_key,))
    job.ask = replace(job.ask, filters=only)
    assert selecting.weigh(job, bid.signed, bid.bid)[1] == ""


def test_what_runs_counts_at_its_worst_against_the_day() -> None:
    """Two at once can't go over the cap together."""
    world = make_world()
    requester = world.peers[-1]
    requester.node.requester._settings = RequesterSettings(day_max_ucr=1_500_000)
    world.give(requester, make_ask(1))
    world.give(requester, make_ask(2))
    assert failure(requester, 2) == "request.day_limit"
