"""A payer that signs two orders of one number, and vouchers that come too early or too late.

Source: protocol/README.md, "Witnesses". One witness signed the order that lost.
"""

from typing import Any

import pytest

from protocol import messages, signing
from protocol.fields import DepositOrder, WitnessSignature
from protocol.messages import Voucher
from router.actions import SessionKey
from tests.router.quorum_support import (
    CHALLENGE_NS,
    GRANT,
    NETWORK,
    TERMS,
    Net,
    WitnessHost,
    assert_sound,
    signer,
)

PAYER, PAYEE = signer("payer"), signer("payee")
LOST_UCR, WON_UCR = 70, 60


def order(salt: int, deposit_ucr: int) -> tuple[bytes, DepositOrder]:
    """The payer's order 0, for the channel of this salt."""
    salts = bytes([salt]) * 16, bytes(16)
    ends = PAYER.public_key, PAYEE.public_key
    cid = signing.channel_id(NETWORK, *ends, *salts, TERMS)
    signature = PAYER.sign(signing.order_bytes(NETWORK, cid, deposit_ucr, 0))
    return cid, DepositOrder(*ends, *salts, TERMS, deposit_ucr, 0, signature)


LOST_CID, LOST = order(1, LOST_UCR)
WON_CID, WON = order(2, WON_UCR)


def voucher(cid: bytes, total_ucr: int) -> Voucher:
    signed = signing.voucher_bytes(NETWORK, cid, total_ucr, ())
    return Voucher(cid, total_ucr, (), PAYER.sign(signed))


def say(net: Net, witness: WitnessHost, sender: bytes, message: Any) -> Any:
    """One message to a witness, and its answer."""
    net.links[sender, witness.key] = True
    net.hosts.setdefault(sender, witness)  # nobody reads what comes back
    witness.context.now_ns = net.now_ns
    witness.take(SessionKey(sender, outbound=False), message)
    witness.flush()
    return net.queues[witness.key, sender].pop()[1]


@pytest.fixture
def net() -> Net:
    """The first of four witnesses signed one order, the other three the other."""
    found = Net(4, 3)
    for witness in found.honest:
        witness.grant({PAYER.public_key: GRANT})
    first, *others = found.honest
    say(found, first, PAYER.public_key, messages.LockAsk(LOST, ()))
    given = []
    for witness in others:
        receipt = say(found, witness, PAYER.public_key, messages.LockAsk(WON, ()))
        given.append(WitnessSignature(witness.key, receipt.signature))
    found.certificate = messages.LockAsk(WON, tuple(given))  # type: ignore[attr-defined]
    return found


def certify(net: Net) -> WitnessHost:
    """Tell the first witness what the others signed."""
    first = net.honest[0]
    say(net, first, PAYEE.public_key, net.certificate)  # type: ignore[attr-defined]
    return first


def free(witness: WitnessHost, key: bytes) -> int:
    assert_sound(witness)
    account = witness.context.ledger.vault.accounts.get(key)
    return account.free_ucr if account else 0


def test_the_order_that_lost_is_released(net: Net) -> None:
    """Its funds are free again, and the other's are locked: as at the others."""
    first = certify(net)
    for witness in net.honest:
        assert free(witness, PAYER.public_key) == GRANT - WON_UCR
    assert first.context.ledger.vault.channels[LOST_CID].deposit_ucr == 0


def test_nothing_is_paid_on_an_order_that_is_not_certified(net: Net) -> None:
    """It may lose yet: what it would have paid would have come from nowhere."""
    first = net.honest[0]
    claim = messages.ClaimAsk(LOST_CID, voucher(LOST_CID, 50), 0)
    answer = say(net, first, PAYEE.public_key, claim)
    assert (type(answer), answer.code) == (messages.WitnessRefuse, "channel.over_deposit")
    certify(net)
    assert free(first, PAYEE.public_key) == 0
    assert free(first, PAYER.public_key) == GRANT - WON_UCR


def test_an_order_that_was_given_back_is_not_released_again(net: Net) -> None:
    """The payer closed the channel that lost before the certificate came."""
    first = net.honest[0]
    say(net, first, PAYER.public_key, messages.ClaimAsk(LOST_CID, None, 1))
    net.advance(CHALLENGE_NS)
    assert free(first, PAYER.public_key) == GRANT
    certify(net)
    assert free(first, PAYER.public_key) == GRANT - WON_UCR


def test_a_voucher_after_the_end_is_too_late(net: Net) -> None:
    """A higher one is refused by name, the same or a lower one gets the settlement again."""
    first = certify(net)
    shown = messages.ClaimAsk(WON_CID, voucher(WON_CID, 20), 1)
    say(net, first, PAYEE.public_key, shown)
    net.advance(CHALLENGE_NS)
    answer = say(net, first, PAYEE.public_key, shown)
    assert (type(answer), answer.settled_ucr) == (messages.Settlement, 20)
    late = messages.ClaimAsk(WON_CID, voucher(WON_CID, 21), 0)
    answer = say(net, first, PAYEE.public_key, late)
    assert (type(answer), answer.code) == (messages.WitnessRefuse, "channel.too_late")
    assert free(first, PAYEE.public_key) == 20


def test_anybody_may_show_a_voucher_and_only_the_ends_may_close(net: Net) -> None:
    """A watchtower has the payee paid; it can't end the channel."""
    first, tower = certify(net), signer("watchtower").public_key
    say(net, first, tower, messages.ClaimAsk(WON_CID, voucher(WON_CID, 33), 0))
    assert free(first, PAYEE.public_key) == 33
    assert free(first, tower) == 0
    with pytest.raises(Exception, match=r"channel\.unknown"):
        say(net, first, tower, messages.ClaimAsk(WON_CID, None, 1))
    assert first.context.ledger.vault.channels[WON_CID].deadline_ns == 0
