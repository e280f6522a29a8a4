"""A payer that denies, hangs up and comes back for ever gets one window, and no more.

Source: router/README.md, "Money": one payer is lent one window, however often it comes back.
"""

from protocol import limits
from protocol.fields import LaneClaim
from protocol.messages import Chunk, NeedVoucher, Reestablish
from router import actions as act
from router.actions import Action
from router.denials import Denials
from router.ledger import Ledger
from tests.router.hand_payer import NETWORK, HandPayer, Shop, blamed, said
from tests.router.support import W_UCR


def lend(payer: HandPayer) -> tuple[int, list[Action]]:
    """A job until the payee sends no more: what it sent, uncovered, and what was done."""
    before = payer.channel().due_ucr if payer.lane else 0
    _, actions = payer.start(40)
    return payer.channel().due_ucr - before, actions


def deny(payer: HandPayer) -> list[Action]:
    """Hang up, come back, and claim to have got nothing of the last lane."""
    closed = payer.channel().settled_due_ucr
    payer.shop.give(act.SessionClosed(payer.session, "session.closed"))
    payer.shop.give(act.SessionOpened(payer.session))
    claims = (LaneClaim(0, 0, closed), LaneClaim(payer.lane, 0, 0))
    return payer.send(Reestablish(payer.cid, payer.channel().total_ucr, claims, None))


def test_denying_again_and_again_is_worth_one_window() -> None:
    """W once; from then on nothing leaves before it is paid, and nobody is blamed for it."""
    payer = HandPayer(Shop())
    lent = []
    for _ in range(5):
        sent, actions = lend(payer)
        lent.append(sent)
        assert not blamed(actions + deny(payer))
    assert 0 < lent[0] <= W_UCR
    assert sum(lent) <= W_UCR
    assert payer.channel().due_ucr == 0
    assert payer.shop.ledger.window_ucr(payer.channel()) == W_UCR - sum(lent)


def test_who_denied_still_buys_for_payment_in_advance() -> None:
    """NeedVoucher names the whole price of what is ready; paid, the text comes."""
    payer = HandPayer(Shop())
    sent = 0
    for _ in range(5):
        sent, actions = lend(payer)
        if not sent:
            break
        deny(payer)
    (need,) = [m for m in said(actions) if isinstance(m, NeedVoucher)]
    window = payer.shop.ledger.window_ucr(payer.channel())
    assert (window, need.total_ucr) == (0, payer.channel().lanes[2].price_ucr(12, 1))
    chunks = [m for m in said(payer.send(payer.voucher(need.total_ucr))) if isinstance(m, Chunk)]
    assert chunks
    assert chunks[-1].due_ucr <= need.total_ucr + window


def test_a_new_channel_lends_no_new_window() -> None:
    """What was denied on one channel is missing on the next of the same payer."""
    payer = HandPayer(Shop())
    sent, _ = lend(payer)
    deny(payer)
    first = payer.cid
    payer.lane = 0  # awards a channel of its own again
    again, _ = lend(payer)
    assert payer.cid != first
    assert sent + again <= W_UCR


def test_what_is_owed_for_ended_lanes_counts_on_every_channel() -> None:
    """Regression: a payer that never paid got a window more with each channel that it opened."""
    payer = HandPayer(Shop())
    lent = 0
    for _ in range(3):
        payer.lane = 0
        sent, _ = lend(payer)
        payer.shop.wait(limits.UNPAID_TIMEOUT_NS)
        lent += sent
    assert len(payer.channels()) == 3
    assert 0 < lent <= W_UCR


def test_other_payers_keep_their_windows() -> None:
    """A denial is held against who denied."""
    shop = Shop()
    cheat, other = HandPayer(shop, 1), HandPayer(shop, 2)
    lend(cheat)
    deny(cheat)
    other.start()
    assert shop.ledger.window_ucr(other.channel()) == W_UCR


def test_denials_are_forgiven_slowly() -> None:
    """1 ucr for DENIAL_FORGIVEN_PER paid since; all of it paid, the slate is clean."""
    payer = HandPayer(Shop())
    sent, _ = lend(payer)
    deny(payer)
    window = payer.shop.ledger.window_ucr(payer.channel())
    assert window == W_UCR - sent
    payer.send(payer.voucher(10 * limits.DENIAL_FORGIVEN_PER))
    assert payer.shop.ledger.window_ucr(payer.channel()) == window + 10
    payer.send(payer.voucher(sent * limits.DENIAL_FORGIVEN_PER))
    assert payer.shop.ledger.window_ucr(payer.channel()) == W_UCR
    assert not payer.shop.ledger.denials.by_payer


def test_denials_are_in_the_log() -> None:
    """Replayed, the payer's window is as small as it was."""
    payer = HandPayer(Shop())
    _, actions = lend(payer)
    actions += deny(payer)
    again = Ledger(NETWORK, payer.shop.signer.public_key)
    for action in actions:
        if isinstance(action, act.Append):
            again.replay(action.type, action.payload)
    again.finish_replay()
    assert again.denials.by_payer == payer.shop.ledger.denials.by_payer
    assert again.window_ucr(again.channels[payer.cid]) == payer.shop.ledger.window_ucr(
        payer.channel()
    )


def test_denials_that_are_remembered_are_bounded() -> None:
    """DENIALS_TRACKED_MAX payers; the oldest denial is forgotten first."""
    denials = Denials()
    for number in range(limits.DENIALS_TRACKED_MAX + 1):
        denials.add(number.to_bytes(32, "big"), 1)
    assert len(denials.by_payer) == limits.DENIALS_TRACKED_MAX
    assert not denials.open_ucr(bytes(32))
