"""Mutual credit: what a payer may come to owe never exceeds its limit, whatever it does.

Source: router/README.md, "Anchors".
"""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.channel import Role
from protocol.errors import RemoteError
from protocol.fields import ChannelTerms
from protocol.messages import Voucher
from protocol.records import ChannelClosed, ChannelOpened, DebtPaid, VoucherAccepted
from protocol.units import NS_PER_S
from router import actions as act
from router.anchor import MutualCredit
from router.ledger import COOPERATIVE, Ledger
from tests.router.support import channels, close_all, complete, key_of, make_ask, make_world

US, KNOWN, STRANGER = (bytes([number]) * 32 for number in (1, 2, 3))
TERMS = ChannelTerms(10, 10**9, 10**15, 1)
ANCHOR = MutualCredit(100, {KNOWN: 250})
PAYERS = st.sampled_from([KNOWN, STRANGER])
AMOUNTS = st.integers(0, 300)
MOVES = st.one_of(
    st.tuples(st.just("open"), PAYERS, AMOUNTS),
    st.tuples(st.just("pay"), PAYERS, AMOUNTS),
    st.tuples(st.just("close"), PAYERS, AMOUNTS),
    st.tuples(st.just("settle"), PAYERS, AMOUNTS),
)


def exposure(ledger: Ledger, payer: bytes) -> int:
    """All that the payer may have promised and not paid."""
    open_ones = ledger.with_peer(payer, Role.PAYEE)
    return ledger.debts.owed_ucr(payer) + sum(channel.deposit_ucr for channel in open_ones)


@given(st.lists(MOVES, max_size=40))
def test_exposure_never_exceeds_the_limit(moves: list[tuple[str, bytes, int]]) -> None:
    """Opening, paying, closing and opening again, in any order: only the operator's word that
    a debt was paid makes room."""
    ledger = Ledger("test", US)
    promised = {KNOWN: 0, STRANGER: 0}  # settled and not paid, counted by hand
    for number, (move, payer, amount) in enumerate(moves):
        open_ones = ledger.with_peer(payer, Role.PAYEE)
        if move == "open":
            with suppress(RemoteError):
                ANCHOR.verify_deposit(ledger, b"", payer, amount, 0)
                salt = number.to_bytes(16, "big")
                ledger.apply(ChannelOpened(payer, US, salt, bytes(16), TERMS, amount, 1))
        elif move == "settle":
            ledger.apply(DebtPaid(payer, amount, 1))
            promised[payer] = max(0, promised[payer] - amount)
        elif open_ones and move == "pay":
            total = min(amount, open_ones[0].deposit_ucr)
            if total > open_ones[0].total_ucr:
                voucher = Voucher(open_ones[0].cid, total, (), bytes(64))
                ledger.apply(VoucherAccepted(voucher))
        elif open_ones:
            total = open_ones[0].total_ucr
            ledger.apply(ChannelClosed(open_ones[0].cid, total, COOPERATIVE, 1, b"", b""))
            promised[payer] += total
        for one, limit in ((KNOWN, 250), (STRANGER, 100)):
            assert ledger.debts.owed_ucr(one) == promised[one]
            assert exposure(ledger, one) <= limit
            assert ANCHOR.deposit_max_ucr(ledger, one) == limit - exposure(ledger, one)


def test_a_top_up_counts_what_it_adds() -> None:
    """The deposit that a channel has already is not counted twice."""
    ledger = Ledger("test", US)
    ledger.apply(ChannelOpened(STRANGER, US, bytes(16), bytes(16), TERMS, 60, 1))
    ANCHOR.verify_deposit(ledger, b"", STRANGER, 100, 60)
    with pytest.raises(RemoteError, match=r"channel\.over_limit") as caught:
        ANCHOR.verify_deposit(ledger, b"", STRANGER, 101, 60)
    assert not caught.value.penalize


def test_a_payer_whose_deposit_is_all_its_limit_is_still_served() -> None:
    """Nothing more can be opened, but the open channel carries the next job."""
    world = make_world(credit_limit_ucr=1_000_000)
    requester = world.peers[1]
    for number in (1, 2):
        complete(world, requester, number)
    assert len(channels(requester)) == 1


def test_a_debt_outlives_its_channel() -> None:
    """Closing and opening again makes no room: what was settled is owed until it is paid."""
    world = make_world(credit_limit_ucr=1_000_000)
    provider, requester = world.peers
    complete(world, requester, 1)
    close_all(world, requester)
    settled = channels(requester)[0].settled_ucr
    assert settled
    world.give(requester, make_ask(2))
    world.run(10 * NS_PER_S)
    (opened,) = [channel for channel in channels(requester) if channel.is_open]
    assert opened.deposit_ucr == 1_000_000 - settled
    close_all(world, requester)
    world.give(provider, act.DebtWasPaid(key_of(requester), 10**9))
    complete(world, requester, 3)
    assert channels(requester)[-1].deposit_ucr == 1_000_000
