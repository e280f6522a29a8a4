"""What a node remembers of users of cheques: bounded, and never so that a nonce is good again.

Source: router/README.md, "Cheques".
"""

import pytest

from protocol import limits
from router import actions as act
from router.fold import Fold
from router.snapshot import restore, snapshot_parts
from tests.router.cheque_desk import (
    NETWORK,
    NOW_NS,
    SELLER,
    USERS,
    Desk,
    cheque_of,
    job_of,
    refusal,
)

OVER_NS = limits.CHEQUE_LIFETIME_NS + limits.CLOCK_SKEW_NS + 1


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHEQUE_NEWCOMERS_MAX", 2)
    monkeypatch.setattr(limits, "CHEQUE_RECEIPTS_KEPT", 3)


def open_desk() -> Desk:
    return Desk(total_ucr=10**9, newcomers_ucr=10**9, users_ucr={})


def known(desk: Desk) -> list[bytes]:
    return list(desk.node.context.ledger.cheques.accounts)


def pay(desk: Desk, user: int, *, ago_ns: int = 0) -> None:
    """A whole answer for this user, whose debt is paid at once."""
    cheque = cheque_of(USERS[user], 20_000, nonce=desk.now_ns - ago_ns)
    desk.finish(job_of(desk.serve(cheque, 10)), tokens=5)
    desk.give(act.ChequesWerePaid(USERS[user].public_key, 20_000))


def test_a_user_whose_cheques_expired_makes_room() -> None:
    """The first of those who owe nothing; before that there is no room for a new one."""
    desk = open_desk()
    pay(desk, 0)
    pay(desk, 1)
    assert refusal(desk.serve(cheque_of(USERS[2]), 10))[0] == "cheque.over_limit"
    desk.now_ns += OVER_NS
    pay(desk, 2)
    assert known(desk) == [USERS[1].public_key, USERS[2].public_key]
    assert desk.node.context.ledger.cheques.earned_ucr == 3 * (12 * 15 + 5 * 60)
    desk.check_replay()


@pytest.mark.parametrize("end", [True, False])
def test_who_owes_or_is_served_is_not_forgotten(end: bool) -> None:
    desk = open_desk()
    for user in (0, 1):
        job = job_of(desk.serve(cheque_of(USERS[user], 20_000), 10))
        if end:
            desk.finish(job, tokens=5)
    desk.now_ns += OVER_NS
    late = cheque_of(USERS[2], nonce=desk.now_ns)
    assert refusal(desk.serve(late, 10))[0] == "cheque.over_limit"


def test_a_forgotten_nonce_is_not_good_again_whatever_the_clock_says() -> None:
    """Put back by as much as it ran, it finds the cheque fresh, and its user unknown; nor does
    that user's next cheque bring the old ones back."""
    desk = open_desk()
    spent = cheque_of(USERS[0], 20_000)
    desk.finish(job_of(desk.serve(spent, 10)), tokens=5)
    desk.give(act.ChequesWerePaid(USERS[0].public_key, 20_000))
    pay(desk, 1)
    desk.now_ns += OVER_NS
    pay(desk, 2)
    assert USERS[0].public_key not in known(desk)
    desk.now_ns = NOW_NS
    assert refusal(desk.serve(spent, 10))[0] == "cheque.replayed"
    desk.start()  # also after a restart
    assert refusal(desk.serve(spent, 10))[0] == "cheque.replayed"
    desk.now_ns += 2 * OVER_NS
    pay(desk, 0)
    desk.now_ns = NOW_NS
    assert refusal(desk.serve(spent, 10))[0] == "cheque.replayed"


def test_the_last_charges_are_kept_for_their_users() -> None:
    """With receipt and signature, or with why there is none; the oldest goes first."""
    desk = open_desk()
    for number in range(4):
        desk.now_ns += 1
        pay(desk, number % 2)
    desk.now_ns += 1
    failed = job_of(desk.serve(cheque_of(USERS[1], 20_000, nonce=desk.now_ns), 10))
    cheques = desk.node.provider.cheques
    user = USERS[1].public_key
    assert cheques.charged(user, desk.now_ns) is None
    desk.give(act.JobBroke(failed, "engine.crashed"))
    broken = cheques.charged(user, desk.now_ns)
    assert broken is not None
    assert (broken.cost_ucr, broken.code, broken.receipt) == (0, "engine.crashed", None)
    assert cheques.charged(user, NOW_NS + 2) is None
    assert cheques.charged(USERS[0].public_key, NOW_NS + 4) is None  # another's nonce
    whole = cheques.charged(user, NOW_NS + 4)
    assert whole is not None
    assert whole.receipt is not None
    assert whole.receipt.payer == user
    desk.check_replay()


def test_a_snapshot_has_all_of_it() -> None:
    desk = open_desk()
    for user in (0, 1):
        pay(desk, user)
    desk.now_ns += OVER_NS
    pay(desk, 2)
    parts = list(snapshot_parts(desk.node.context.ledger))
    ledger = Fold(NETWORK, SELLER.public_key).ledger
    restore(ledger, parts)
    assert list(snapshot_parts(ledger)) == parts
    assert ledger.cheques == desk.node.context.ledger.cheques
    assert ledger.cheques.floor == NOW_NS
