"""Cheques: what is refused, what is charged, and that no nonce is good twice.

Source: router/README.md, "Cheques"; protocol/README.md, "Cheques".
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits, signing, transcript
from protocol.crypto import verify
from protocol.fields import Cheque
from protocol.records import ChequeCharged, ChequeTaken
from protocol.units import NS_PER_S, format_credits
from router import actions as act
from router import events
from tests.router.cheque_desk import (
    NETWORK,
    NOW_NS,
    SELLER,
    USERS,
    Desk,
    cheque_of,
    job_of,
    most_ucr,
    records_of,
    refusal,
    told,
)
from tests.router.support import PROMPT, flipped

LISTED, NEWCOMER = USERS[0], USERS[2]
OLDEST_NS, EARLIEST_NS = limits.CHEQUE_LIFETIME_NS, -limits.CLOCK_SKEW_NS

REFUSED: dict[str, tuple[str, Callable[[], Cheque]]] = {
    "another node": ("cheque.wrong_node", lambda: cheque_of(node=bytes(32))),
    "too old": ("cheque.expired", lambda: cheque_of(age_ns=OLDEST_NS + 1)),
    "too early": ("cheque.expired", lambda: cheque_of(age_ns=EARLIEST_NS - 1)),
    "another network": ("cheque.bad_signature", lambda: cheque_of(network="other")),
    "no signature": ("cheque.bad_signature", lambda: replace(cheque_of(), signature=bytes(64))),
    "a bit of it": (
        "cheque.bad_signature",
        lambda: replace(cheque_of(), signature=flipped(cheque_of().signature)),
    ),
    "raised": ("cheque.bad_signature", lambda: replace(cheque_of(), amount_ucr=100_001)),
    "another nonce": ("cheque.bad_signature", lambda: replace(cheque_of(), nonce=NOW_NS + 1)),
    "another's": (
        "cheque.bad_signature",
        lambda: replace(cheque_of(), user=USERS[1].public_key),
    ),
    "unbound": ("cheque.bad_signature", lambda: replace(cheque_of(body=bytes(32)), body=b"")),
    "bound": ("cheque.bad_signature", lambda: replace(cheque_of(), body=bytes(32))),
    "bound elsewhere": (
        "cheque.bad_signature",
        lambda: replace(cheque_of(body=bytes(32)), body=bytes([1]) * 32),
    ),
    "half a digest": ("cheque.malformed", lambda: cheque_of(body=bytes(16))),
    "short": ("cheque.short", lambda: cheque_of(amount_ucr=most_ucr(40) - 1)),
    "nothing": ("cheque.short", lambda: cheque_of(amount_ucr=0)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_leaves_nothing_behind(case: str) -> None:
    """No record, no job, no nonce used."""
    desk, (code, write) = Desk(), REFUSED[case]
    assert refusal(desk.serve(write()))[0] == code
    assert desk.log == []
    assert job_of(desk.serve(cheque_of()))  # the same nonce


def test_the_shortfall_is_said_to_the_ucr() -> None:
    """In credits to a person, in ucr to a program."""
    (short,) = told(Desk().serve(cheque_of(amount_ucr=1_000)))
    most, lacks = format_credits(most_ucr(40)), format_credits(most_ucr(40) - 1_000)
    said = f"0.001 of {most} credits, {lacks} short"
    assert short == events.Failed("cheque.short", said, 0, 0, most_ucr(40) - 1_000)


@pytest.mark.parametrize("age_ns", [OLDEST_NS, 0, EARLIEST_NS])
def test_a_cheque_is_good_up_to_its_bounds(age_ns: int) -> None:
    assert job_of(Desk().serve(cheque_of(amount_ucr=most_ucr(40), age_ns=age_ns)))


def test_none_is_taken_where_none_is_wanted() -> None:
    """Which is how a node is, unless its operator says otherwise."""
    desk = Desk(total_ucr=0)
    assert refusal(desk.serve(cheque_of()))[0] == "cheque.not_taken"
    desk = Desk(newcomer_ucr=0)
    assert refusal(desk.serve(cheque_of(NEWCOMER)))[0] == "cheque.unknown_user"


def test_an_answer_is_durable_before_it_leaves_and_charged_by_the_tariff() -> None:
    """The record of the nonce stands before all that is told, that of the price before the end."""
    desk = Desk()
    actions = desk.serve(cheque_of())
    job = job_of(actions)
    order = [type(action) for action in actions if isinstance(action, act.Append | act.Deliver)]
    assert order == [act.Append, act.Deliver, act.Deliver]
    assert isinstance(records_of(actions)[0], ChequeTaken)
    (started,) = [action for action in actions if isinstance(action, act.StartJob)]
    assert started.payer == LISTED.public_key  # in the engine's queue as any requester
    actions = desk.finish(job, tokens=30)
    kinds = [type(action) for action in actions if isinstance(action, act.Append | act.Deliver)]
    assert kinds == [act.Deliver, act.Append, act.Deliver]
    (charged,) = records_of(actions)
    text, done = told(actions)
    price_ucr = 12 * 15 + 30 * 60
    assert isinstance(text, events.Text)
    assert isinstance(done, events.Done)
    assert (charged.cost_ucr, text.due_ucr, done.receipt.price_ucr) == (price_ucr,) * 3
    balance = desk.node.context.ledger.balance()
    assert (balance.earned_ucr, balance.cheques_ucr) == (price_ucr, price_ucr)


def test_the_receipt_is_the_user_s_evidence() -> None:
    """Of the node's key, over the cheque's id, the prompt and the text."""
    desk, cheque = Desk(), cheque_of()
    done = told(desk.finish(job_of(desk.serve(cheque)), tokens=3))[-1]
    receipt, cid = done.receipt, signing.cheque_id(NETWORK, cheque)
    signed = signing.receipt_bytes(NETWORK, signing.receipt_id(receipt))
    assert verify(SELLER.public_key, signed, done.signature)
    assert (receipt.payer, receipt.payee) == (LISTED.public_key, SELLER.public_key)
    assert (receipt.request_id, receipt.bid_id, receipt.cid, receipt.lane) == (cid, cid, cid, 0)
    commitment = transcript.prompt_commitment(PROMPT, cid)
    start = transcript.transcript_start(NETWORK, cid, cid, commitment)
    counts = 12, 3, receipt.price_ucr
    assert receipt.transcript == transcript.transcript_next(start, 1, "word ", *counts)


def test_one_nonce_pays_once_also_when_several_race_and_after_a_kill() -> None:
    """While the first is made, when it is done, and after restarts before and after its end."""
    for ends in (False, True):
        desk, cheque = Desk(), cheque_of()
        job = job_of(desk.serve(cheque))
        assert refusal(desk.serve(cheque))[0] == "cheque.replayed"
        if ends:
            desk.finish(job, tokens=30)
        for _ in range(2):
            assert refusal(desk.serve(cheque))[0] == "cheque.replayed"
            desk.start()
        charged = [record.cost_ucr for record in logged(desk, ChequeCharged)]
        assert charged == [12 * 15 + 30 * 60 if ends else 0]
        assert len(logged(desk, ChequeTaken)) == 1


def logged(desk: Desk, kind: type) -> list[ChequeTaken | ChequeCharged]:
    """The log's records of one kind."""
    actions = [act.Append(number, payload) for number, payload in desk.log]
    return [record for record in records_of(actions) if isinstance(record, kind)]


def test_a_stop_in_the_middle_costs_the_user_nothing() -> None:
    desk = Desk()
    job = job_of(desk.serve(cheque_of()))
    desk.give(act.JobStarted(job, 12))
    desk.give(act.JobTokens(job, (("much text", 30),)))
    desk.start()
    (charged,) = logged(desk, ChequeCharged)
    assert (charged.cost_ucr, charged.code) == (0, "cheque.interrupted")
    assert desk.node.context.ledger.cheques.at_risk_ucr == 0


def test_a_nonce_older_than_all_that_are_remembered_counts_as_used() -> None:
    """However many came since, and although this one never came."""
    desk = Desk(total_ucr=10**9, users_ucr={LISTED.public_key: 10**9})
    for number in range(limits.CHEQUE_NONCES_KEPT + 1):
        cheque = cheque_of(nonce=NOW_NS + 2 * number)
        desk.give(act.JobBroke(job_of(desk.serve(cheque)), "engine.crashed"))
    assert refusal(desk.serve(cheque_of(nonce=NOW_NS - 1)))[0] == "cheque.replayed"
    assert refusal(desk.serve(cheque_of(nonce=NOW_NS)))[0] == "cheque.replayed"
    assert job_of(desk.serve(cheque_of(nonce=NOW_NS + 1)))  # among those that are remembered
    desk.check_replay()


@pytest.mark.parametrize("how", ["left", "deadline", "crash", "queued"])
def test_what_ends_early_costs_what_the_user_let_be_made(how: str) -> None:
    """Who leaves pays for what was made until then; what we fail is not charged."""
    desk = Desk()
    job = job_of(desk.serve(cheque_of()))
    if how != "queued":
        desk.give(act.JobStarted(job, 12))
        desk.give(act.JobTokens(job, (("word", 1),)))
    if how == "crash":
        actions = desk.give(act.JobBroke(job, "engine.crashed"))
    elif how == "deadline":
        desk.now_ns += 60 * NS_PER_S
        actions = desk.node.handle_timer(desk.now_ns)
    else:
        actions = desk.give(act.CancelAsk(desk.asks))
    (charged,) = records_of(actions)
    cost_ucr = {"left": 240, "deadline": 240, "crash": 0, "queued": 0}[how]
    assert (charged.cost_ucr, charged.receipt) == (cost_ucr, None)
    assert act.CancelJob(job) in actions
    assert desk.give(act.JobTokens(job, (("late", 9),))) == []


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_price_is_never_over_what_was_held(input_tokens: int, tokens: int) -> None:
    """Whatever an engine counts; and so never over the cheque."""
    desk = Desk()
    job = job_of(desk.serve(cheque_of(amount_ucr=most_ucr(40))))
    done = told(desk.finish(job, tokens=tokens, input_tokens=input_tokens))[-1]
    tariff_ucr = 15 * input_tokens + 60 * tokens
    assert done.receipt.price_ucr == min(tariff_ucr, most_ucr(40))


def test_limits_hold_for_what_is_owed_and_what_runs() -> None:
    """Of each user, of newcomers together, and of all; and the operator's word makes room."""
    desk = Desk()
    each_ucr = most_ucr(200)  # 15,990
    desk.serve(cheque_of(NEWCOMER), 200)
    code, detail = refusal(desk.serve(cheque_of(NEWCOMER, nonce=NOW_NS + 1), 200))
    assert (code, detail.partition(" ")[0]) == ("cheque.over_limit", "you")
    code, detail = refusal(desk.serve(cheque_of(USERS[3]), 200))
    assert (code, detail.partition(" ")[0]) == ("cheque.over_limit", "newcomers")
    for number in range(3):
        desk.serve(cheque_of(LISTED, nonce=NOW_NS + number), 200)
    (over,) = told(desk.serve(cheque_of(LISTED, nonce=NOW_NS + 9), 200))
    left_ucr = 60_000 - 3 * each_ucr
    left, most = format_credits(left_ucr), format_credits(each_ucr)
    said = f"you have {left} credits left, this may cost {most}"
    assert over == events.Failed("cheque.over_limit", said, 0, 0, each_ucr - left_ucr)
    desk = Desk(total_ucr=each_ucr)
    job = job_of(desk.serve(cheque_of(LISTED), 200))
    code, detail = refusal(desk.serve(cheque_of(USERS[1]), 200))
    assert (code, detail.partition(" ")[0]) == ("cheque.over_limit", "all")
    desk.finish(job, tokens=200)
    owed_ucr = desk.node.context.ledger.cheques.account(LISTED.public_key).owed_ucr
    assert refusal(desk.serve(cheque_of(USERS[1]), 200))[0] == "cheque.over_limit"
    desk.give(act.ChequesWerePaid(LISTED.public_key, owed_ucr))
    assert job_of(desk.serve(cheque_of(USERS[1]), 200))
    desk.check_replay()


def test_places_are_those_of_all_jobs() -> None:
    """With all taken by cheques, nothing is offered as free, and a cheque waits or is refused."""
    desk = Desk()
    rooms = desk.node.provider.rooms
    for number in range(4):
        assert rooms.free(desk.offer) == 4 - number
        desk.serve(cheque_of(USERS[number]), 10)
    assert refusal(desk.serve(cheque_of(nonce=NOW_NS + 1), 10))[0] == "provider.busy"
    desk.give(act.OffersChanged((replace(desk.offer, queue_jobs=2),)))
    assert job_of(desk.serve(cheque_of(nonce=NOW_NS + 1), 10))


def test_what_can_t_be_served_is_refused_before_the_nonce_is_used() -> None:
    desk = Desk()
    assert refusal(desk.serve(cheque_of(), model="other"))[0] == "engine.unknown_model"
    assert refusal(desk.serve(cheque_of(), 2_048))[0] == "engine.prompt_too_long"
    assert refusal(desk.serve(cheque_of(), 40, timeout_ns=1))[0] == "engine.too_late"
    desk.give(act.Drain())
    assert refusal(desk.serve(cheque_of()))[0] == "provider.draining"
    assert desk.log == []
