"""A witness's books where an order was signed, its channel settled, and another order certified.

Source: protocol/README.md, "Witnesses". The rest is seen through messages, in test_quorum.py.
"""

from dataclasses import replace

from protocol.records import FundsGranted, FundsLocked, FundsSettled, OrderCertified
from router.vault import Vault
from tests.vectors.samples import ORDER


def test_what_a_settlement_gave_back_is_not_released_again() -> None:
    """The raise that lost its number was returned with the rest of its channel."""
    vault = Vault("test")
    opening = replace(ORDER, deposit_ucr=300, sequence=0)
    raised = replace(opening, deposit_ucr=500, sequence=1)
    other = replace(ORDER, payer_salt=bytes(16), deposit_ucr=200, sequence=1)
    vault.apply(FundsGranted(ORDER.payer, 1_000))
    vault.apply(FundsLocked(opening))
    vault.apply(OrderCertified(opening, ()))
    vault.apply(FundsLocked(raised))
    account = vault.account(ORDER.payer)
    assert (account.free_ucr, account.locked_ucr) == (500, 500)
    vault.apply(FundsSettled(vault.cid(opening), 100, 0))
    assert (account.free_ucr, account.locked_ucr) == (900, 0)
    vault.apply(OrderCertified(other, ()))
    assert (account.free_ucr, account.locked_ucr) == (700, 200)
