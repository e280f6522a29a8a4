"""Awards that lie: refused with a code, the liar blamed, and nothing is left behind.

Each lie is signed by the payer that tells it. Source: protocol/README.md, "Awards".
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol import limits
from protocol.envelope import Signed, sign_envelope
from protocol.fields import ChatMessage, InferenceType, LaneClaim, Prompt
from protocol.messages import Accept, Award, Bid, Refuse
from protocol.transcript import prompt_commitment
from router import actions as act
from router.actions import Action
from tests.router.hand_payer import KEY, PARAMETERS, HandPayer, Shop, blamed, of_kind, said
from tests.router.support import PROMPT, stranger

Bend = Callable[[HandPayer, Signed, Signed], Award]
OTHER_PROMPT = Prompt(InferenceType.CHAT, (ChatMessage("user", "other"),))


def assert_refused(actions: list[Action], code: str, offence: bool) -> None:
    """One Refuse with the code; no job, no record; blamed and hung up on only for an offence."""
    answers = said(actions)
    assert [(type(answer), answer.code) for answer in answers] == [(Refuse, code)]
    assert not of_kind(actions, act.StartJob)
    assert not of_kind(actions, act.Append)
    assert blamed(actions) == ([code] if offence else [])
    assert bool(of_kind(actions, act.CloseSession)) == offence


def opened(payer: HandPayer, request: Signed, bid: Signed, **changes: Any) -> Award:
    """An award whose channel opening was changed before it was signed."""
    bid_message: Bid = bid.message
    opening = payer.open(bid_message, **changes)
    return payer.award(request, bid, open=opening, cid=payer.cid)


def with_voucher(payer: HandPayer, request: Signed, bid: Signed, *args: Any, **lies: Any) -> Award:
    """An award with a voucher on the channel that it opens."""
    opening = payer.open(bid.message)
    voucher = payer.voucher(*args, **lies)
    return payer.award(request, bid, open=opening, cid=payer.cid, voucher=voucher)


def bad_terms(payer: HandPayer, request: Signed, bid: Signed) -> Award:
    """A wider window than the bid offered."""
    return opened(payer, request, bid, terms=replace(bid.message.terms, window_ucr=10**6))


def forged_open(payer: HandPayer, request: Signed, bid: Signed) -> Award:
    """The deposit is changed after signing."""
    opening = replace(payer.open(bid.message), deposit_ucr=500_001)
    return payer.award(request, bid, open=opening, cid=payer.cid)


LIES: dict[str, tuple[str, bool, Bend]] = {
    "no such bid": ("award.unknown_bid", False, lambda p, r, b: p.award(r, b, bid_id=bytes(32))),
    "another request": (
        "award.unknown_bid",
        False,
        lambda p, r, b: p.award(r, b, request_id=bytes(32)),
    ),
    "prompt": ("award.wrong_prompt", True, lambda p, r, b: p.award(r, b, prompt=OTHER_PROMPT)),
    "prompt key": (
        "award.wrong_prompt",
        True,
        lambda p, r, b: p.award(r, b, prompt_key=bytes(32)),
    ),
    "tokens": (
        "award.wrong_parameters",
        True,
        lambda p, r, b: p.award(r, b, parameters=replace(PARAMETERS, output_tokens_max=41)),
    ),
    "signature": ("award.bad_signature", True, lambda p, r, b: p.award(r, b, signature=bytes(64))),
    "first lane": ("channel.bad_lanes", True, lambda p, r, b: p.award(r, b, lane=2)),
    "terms": ("channel.bad_terms", True, bad_terms),
    "salt": ("channel.bad_terms", True, lambda p, r, b: opened(p, r, b, payee_salt=bytes(16))),
    "channel id": (
        "channel.bad_terms",
        True,
        lambda p, r, b: p.award(r, b, open=p.open(b.message), cid=bytes(32)),
    ),
    "deposit": (
        "channel.over_limit",
        False,
        lambda p, r, b: opened(p, r, b, deposit_ucr=2_000_001),
    ),
    "open signature": ("channel.bad_signature", True, forged_open),
    "no channel": ("channel.unknown", False, lambda p, r, b: p.award(r, b, cid=bytes(32))),
    "voucher forged": (
        "channel.bad_signature",
        True,
        lambda p, r, b: with_voucher(p, r, b, 9, signer=stranger()),
    ),
    "voucher network": (
        "channel.bad_signature",
        True,
        lambda p, r, b: with_voucher(p, r, b, 9, network="else"),
    ),
    "voucher channel": (
        "channel.unknown",
        True,
        lambda p, r, b: with_voucher(p, r, b, 9, cid=bytes(32)),
    ),
    "voucher over deposit": (
        "channel.over_deposit",
        True,
        lambda p, r, b: with_voucher(p, r, b, 500_001),
    ),
    "voucher of nothing": ("channel.stale_total", False, lambda p, r, b: with_voucher(p, r, b, 0)),
    "voucher lanes": (
        "channel.bad_lanes",
        True,
        lambda p, r, b: with_voucher(p, r, b, 9, (LaneClaim(1, 0, 0), LaneClaim(1, 0, 0))),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_an_award_that_lies(name: str) -> None:
    """Refused with its code; and the same bid can still be awarded in order afterwards."""
    code, offence, bend = LIES[name]
    shop = Shop()
    payer = HandPayer(shop)
    request, bid = payer.ask()
    assert_refused(payer.send(bend(payer, request, bid)), code, offence)
    assert not shop.ledger.channels
    if offence:
        shop.give(act.SessionOpened(payer.session))
    payer.lane = 0
    answers = said(payer.send(payer.award(request, bid)))
    assert [type(answer) for answer in answers] == [Accept]


def test_an_award_of_another_inference_type() -> None:
    """The commitment is right, but the request had announced a chat: `award.wrong_parameters`."""
    completion = Prompt(InferenceType.COMPLETION, PROMPT.messages)
    payer = HandPayer(Shop())
    request, bid = payer.ask(prompt_commitment=prompt_commitment(completion, KEY))
    award = payer.award(request, bid, prompt=completion)
    assert_refused(payer.send(award), "award.wrong_parameters", True)


def test_another_requesters_bid() -> None:
    """A bid is a promise to one requester; who else shows it is blamed."""
    shop = Shop()
    owner, thief = HandPayer(shop, 1), HandPayer(shop, 2)
    request, bid = owner.ask()
    assert_refused(thief.send(thief.award(request, bid)), "award.unknown_bid", True)
    assert [type(a) for a in said(owner.send(owner.award(request, bid)))] == [Accept]


def test_an_expired_bid() -> None:
    """Late is no offence."""
    shop = Shop()
    payer = HandPayer(shop)
    request, bid = payer.ask()
    shop.wait(limits.BID_LIFETIME_NS)
    assert_refused(payer.send(payer.award(request, bid)), "award.unknown_bid", False)


def test_a_bid_in_its_last_moment() -> None:
    """A promise holds to its end."""
    shop = Shop()
    payer = HandPayer(shop)
    request, bid = payer.ask()
    shop.wait(limits.BID_LIFETIME_NS - 1)
    assert [type(a) for a in said(payer.send(payer.award(request, bid)))] == [Accept]


def test_a_bid_is_awarded_once() -> None:
    """The second award of one bid finds none."""
    payer = HandPayer(Shop())
    request, bid = payer.ask()
    award = payer.award(request, bid)
    payer.send(award)
    assert_refused(payer.send(award), "award.unknown_bid", False)


def test_an_award_on_another_payers_channel() -> None:
    """A channel belongs to its payer; to others it does not exist."""
    shop = Shop()
    owner, thief = HandPayer(shop, 1), HandPayer(shop, 2)
    owner.start()
    request, bid = thief.ask()
    thief.lane = 1
    award = thief.award(request, bid, cid=owner.cid)
    assert_refused(thief.send(award), "channel.unknown", False)


@pytest.mark.parametrize("lane", [0, 1])
def test_a_lane_is_used_once(lane: int) -> None:
    """A lane number at or below the last one is not new: `channel.bad_lanes`."""
    payer = HandPayer(Shop())
    payer.start()
    request, bid = payer.ask()
    assert_refused(payer.send(payer.award(request, bid, lane=lane)), "channel.bad_lanes", False)


def test_an_award_on_a_detached_channel() -> None:
    """Nothing but re-establishing until both have done it."""
    shop = Shop()
    payer = HandPayer(shop)
    payer.start()
    shop.give(act.SessionClosed(payer.session, "session.closed"))
    shop.give(act.SessionOpened(payer.session))
    request, bid = payer.ask()
    assert_refused(payer.send(payer.award(request, bid)), "channel.wrong_state", False)


def test_an_award_on_an_expired_channel() -> None:
    """Near its lifetime's end, when the payee claims, a channel takes no new lane."""
    shop = Shop()
    payer = HandPayer(shop)
    payer.start()
    shop.wait(limits.CHANNEL_LIFETIME_NS - limits.CLAIM_MARGIN_NS)
    request, bid = payer.ask()
    assert_refused(payer.send(payer.award(request, bid)), "channel.wrong_state", False)


def test_a_request_with_an_unusable_key() -> None:
    """A sealing key of low order: the requester is blamed, no bid is made."""
    shop = Shop()
    payer = HandPayer(shop)
    request, _ = payer.ask()
    message = replace(request.message, ephemeral_key=bytes(32))
    bad = sign_envelope(payer.signer, "net", message, shop.now_ns)
    actions = shop.give(act.GossipReceived(bad))
    assert blamed(actions) == ["wire.bad_field"]
    assert not of_kind(actions, act.SendBid)
