"""Bad input about money, in one table: each is refused with its code and changes nothing.

Source: protocol/README.md, "Channels". "Nothing" is the whole ledger, byte for byte, and the log.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from protocol import limits, signing
from protocol.channel import ChannelState
from protocol.crypto import Signer
from protocol.fields import LaneClaim
from protocol.messages import (
    CloseClaim,
    CloseNotice,
    CloseRequest,
    CloseShown,
    ReceiptAck,
    Reestablish,
    Resume,
    TopUp,
    Voucher,
)
from router import actions as act
from router.actions import Action
from router.snapshot import snapshot_parts
from tests.router.hand_payer import NETWORK, HandPayer, Shop, blamed, of_kind, said
from tests.router.support import flipped, stranger

PAID = 1_000
DEPOSIT = 500_000
Make = Callable[[HandPayer], Any]


def close(payer: HandPayer, total_ucr: int, network: str = NETWORK) -> CloseRequest:
    """A close by agreement, signed."""
    layout = signing.close_bytes(network, payer.cid, total_ucr)
    return CloseRequest(payer.cid, total_ucr, payer.signer.sign(layout))


def notice(
    payer: HandPayer, voucher: Voucher | None, total_ucr: int, network: str = NETWORK
) -> CloseNotice:
    """A close alone, signed."""
    layout = signing.close_notice_bytes(network, payer.cid, total_ucr, 9)
    return CloseNotice(payer.cid, total_ucr, 9, voucher, payer.signer.sign(layout))


def shown(payer: HandPayer, by_payer: Signer, by_payee: Signer | None = None) -> CloseShown:
    """A close that both are said to have agreed to, at nothing."""
    asked = signing.close_bytes(NETWORK, payer.cid, 0)
    agreed = signing.close_ack_bytes(NETWORK, payer.cid, 0)
    payee = by_payee or payer.signer
    return CloseShown(payer.cid, 0, by_payer.sign(asked), payee.sign(agreed))


def top_up(payer: HandPayer, deposit_ucr: int, network: str = NETWORK) -> TopUp:
    """A larger deposit, signed."""
    layout = signing.top_up_bytes(network, payer.cid, deposit_ucr)
    return TopUp(payer.cid, deposit_ucr, payer.signer.sign(layout))


def other_channel(payer: HandPayer) -> Voucher:
    """A voucher of another channel of the same payer, with this one's id."""
    return replace(payer.voucher(PAID + 1, cid=bytes(32)), cid=payer.cid)


@dataclass(frozen=True)
class Bad:
    """What is sent, and how it is refused."""

    code: str
    make: Make
    offence: bool = True
    state: ChannelState = ChannelState.READY


UNORDERED = (LaneClaim(1, 0, 0), LaneClaim(0, 0, 0))
CHALLENGE, SETTLED = ChannelState.CHALLENGE, ChannelState.SETTLED
TABLE: dict[str, Bad] = {
    "voucher, forged": Bad("channel.bad_signature", lambda p: p.voucher(2_000, signer=stranger())),
    "voucher, changed": Bad(
        "channel.bad_signature", lambda p: replace(p.voucher(2_000), total_ucr=3_000)
    ),
    "voucher, flipped": Bad(
        "channel.bad_signature",
        lambda p: replace(p.voucher(2_000), signature=flipped(p.voucher(2_000).signature)),
    ),
    "voucher, replayed": Bad("channel.stale_total", lambda p: p.voucher(PAID), offence=False),
    "voucher, lower": Bad("channel.stale_total", lambda p: p.voucher(PAID - 1), offence=False),
    "voucher, over the deposit": Bad("channel.over_deposit", lambda p: p.voucher(DEPOSIT + 1)),
    "voucher, unknown channel": Bad(
        "channel.unknown", lambda p: p.voucher(2_000, cid=bytes(32)), offence=False
    ),
    "voucher, another channel's": Bad("channel.bad_signature", other_channel),
    "voucher, another network's": Bad(
        "channel.bad_signature", lambda p: p.voucher(2_000, network="else")
    ),
    "voucher, lanes unordered": Bad("channel.bad_lanes", lambda p: p.voucher(2_000, UNORDERED)),
    "close, old total": Bad(
        "channel.close_mismatch", lambda p: close(p, p.channel().due_ucr - 1), offence=False
    ),
    "close, too much": Bad("channel.unpaid", lambda p: close(p, DEPOSIT), offence=False),
    "close, another network's": Bad(
        "channel.bad_signature", lambda p: close(p, p.channel().due_ucr, "else")
    ),
    "top-up, another network's": Bad(
        "channel.bad_signature", lambda p: top_up(p, 600_000, "else")
    ),
    "top-up, over the limit": Bad("channel.over_limit", lambda p: top_up(p, 10**9), offence=False),
    "notice, another network's": Bad(
        "channel.bad_signature", lambda p: notice(p, None, 0, "else")
    ),
    "notice, without its voucher": Bad("channel.close_mismatch", lambda p: notice(p, None, 2_000)),
    "notice, a forged voucher": Bad(
        "channel.bad_signature",
        lambda p: notice(p, p.voucher(2_000, signer=stranger()), 2_000),
    ),
    "notice, a forged lower voucher": Bad(
        "channel.bad_signature", lambda p: notice(p, p.voucher(9, signer=stranger()), 9)
    ),
    "notice, over the deposit": Bad(
        "channel.over_deposit",
        lambda p: notice(p, p.voucher(DEPOSIT + 1), DEPOSIT + 1),
        offence=False,
    ),
    "claim, nothing is closing": Bad(
        "channel.wrong_state", lambda p: CloseClaim(p.cid, p.voucher(2_000)), offence=False
    ),
    "claim, lower": Bad(
        "channel.stale_total",
        lambda p: CloseClaim(p.cid, p.voucher(PAID)),
        offence=False,
        state=CHALLENGE,
    ),
    "claim, forged": Bad(
        "channel.bad_signature",
        lambda p: CloseClaim(p.cid, p.voucher(2_000, signer=stranger())),
        state=CHALLENGE,
    ),
    "claim, another channel's voucher": Bad(
        "channel.unknown",
        lambda p: CloseClaim(p.cid, p.voucher(2_000, cid=bytes(32))),
        state=CHALLENGE,
    ),
    "claim, after the deadline": Bad(
        "channel.too_late",
        lambda p: CloseClaim(p.cid, p.voucher(2_000)),
        offence=False,
        state=SETTLED,
    ),
    "agreement, forged": Bad(
        "channel.bad_signature", lambda p: shown(p, stranger()), state=CHALLENGE
    ),
    "agreement, only the payer's": Bad(
        "channel.bad_signature", lambda p: shown(p, p.signer), state=CHALLENGE
    ),
    "agreement, of a closed channel": Bad(
        "channel.wrong_state",
        lambda p: shown(p, p.signer, p.shop.signer),
        offence=False,
        state=SETTLED,
    ),
    "voucher, while closing, lower": Bad(
        "channel.stale_total", lambda p: p.voucher(PAID - 1), offence=False, state=CHALLENGE
    ),
    "voucher, after the deadline": Bad(
        "channel.unknown", lambda p: p.voucher(2_000), offence=False, state=SETTLED
    ),
    "top-up, while closing": Bad(
        "channel.wrong_state", lambda p: top_up(p, 600_000), offence=False, state=CHALLENGE
    ),
    "close, while closing alone": Bad(
        "channel.wrong_state", lambda p: close(p, PAID), offence=False, state=CHALLENGE
    ),
    "counter-signature, of nothing": Bad(
        "channel.unknown", lambda p: ReceiptAck(p.cid, 9, bytes(32), bytes(64)), offence=False
    ),
    "re-establish, unbroken": Bad(
        "channel.wrong_state", lambda p: Reestablish(p.cid, 0, (LaneClaim(0, 0, 0),), None)
    ),
    "resume, unbroken": Bad("channel.wrong_state", lambda p: Resume(p.cid, 1, 1)),
}


def prepared(state: ChannelState) -> HandPayer:
    """A payer that has paid PAID for a lane that ended, with the channel in that state."""
    shop = Shop()
    payer = HandPayer(shop)
    payer.start(10)
    payer.send(payer.voucher(PAID))
    shop.wait(61 * 10**9)  # past the request's deadline: the lane ends
    assert not payer.channel().lanes
    if state is not ChannelState.READY:
        shop.give(act.ForceClose((payer.cid,)))
    if state is SETTLED:
        shop.wait(limits.CHALLENGE_NS)
    assert payer.channel().state is state
    return payer


def refusals(actions: list[Action]) -> list[str]:
    """The codes that were noted, offences or not."""
    notes = of_kind(actions, act.Note)
    noted = [n for n in notes if n.event in ("input.ignored", "peer.offence")]
    return [dict(n.fields)["code"] for n in noted]


@pytest.mark.parametrize("name", TABLE)
def test_refused_with_its_code_and_nothing_changes(name: str) -> None:
    """The ledger is the same bytes, nothing is logged; only lies are offences."""
    bad = TABLE[name]
    payer = prepared(bad.state)
    before = list(snapshot_parts(payer.shop.ledger))
    actions = payer.send(bad.make(payer))
    assert refusals(actions) == [bad.code]
    assert blamed(actions) == ([bad.code] if bad.offence else [])
    assert not of_kind(actions, act.Append)
    after = list(snapshot_parts(payer.shop.ledger))
    if not bad.offence:  # an offence ends the stream, and its channels wait for the next
        assert after == before
    else:
        assert payer.channel().state in (ChannelState.DETACHED, bad.state)
        payer.channel().state = bad.state
        assert list(snapshot_parts(payer.shop.ledger)) == before


def test_an_old_total_is_answered_and_never_accepted() -> None:
    """A close alone with an older voucher: the newer one is shown, and settles the channel."""
    payer = prepared(ChannelState.READY)
    answers = said(payer.send(notice(payer, payer.voucher(PAID - 1), PAID - 1)))
    assert [type(answer) for answer in answers] == [CloseClaim]
    assert answers[0].voucher.total_ucr == PAID
    payer.shop.wait(limits.CHALLENGE_NS)
    assert payer.channel().settled_ucr == PAID


def test_a_better_voucher_counts_until_the_deadline() -> None:
    """One ns before it, in a claim or on its own; one that comes then is too late."""
    for message in (lambda p: CloseClaim(p.cid, p.voucher(2_000)), lambda p: p.voucher(2_000)):
        payer = prepared(CHALLENGE)
        payer.shop.now_ns = payer.channel().deadline_ns - 1
        assert not refusals(payer.send(message(payer)))
        payer.shop.now_ns += 1
        assert refusals(payer.send(CloseClaim(payer.cid, payer.voucher(3_000)))) == [
            "channel.too_late"
        ]
        payer.shop.wait(0)
        assert payer.channel().settled_ucr == 2_000
