"""A quorum of witnesses: deposits, claims and closes between production cores.

Source: protocol/README.md, "Witnesses".
"""

from dataclasses import replace

import pytest

from protocol import messages, signing
from protocol.channel import Channel
from protocol.errors import RemoteError
from protocol.fields import WitnessSignature
from router.actions import SessionKey
from router.ledger import Ledger
from router.snapshot import restore, snapshot_parts
from tests.router.quorum_support import (
    CHALLENGE_NS,
    GRANT,
    NETWORK,
    Client,
    Net,
    assert_sound,
    signer,
)


def market(count: int = 4, threshold: int = 3, liars: int = 0) -> tuple[Net, Client, Client]:
    """Witnesses, a payer with GRANT at each, and a payee with nothing; nobody connected."""
    net = Net(count, threshold, liars)
    payer, payee = Client(net, "payer"), Client(net, "payee")
    for witness in net.honest:
        witness.grant({payer.key: GRANT})
    return net, payer, payee


def deposit(net: Net, payer: Client, payee: Client, salt: int, amount: int) -> Channel:
    """Order a deposit; the answer is up to the witnesses."""
    channel = payer.open(payer.key, payee.key, salt, amount)
    assert not payer.quorum.top_up(payer.context, channel, amount)
    payer.flush()
    net.settle_down()
    return channel


def proof_of(payer: Client, channel: Channel) -> messages.DepositProof:
    """The certificate that the payer would show."""
    kept = payer.context.ledger.backing.proof(channel.cid)
    assert kept is not None
    return messages.DepositProof(kept.order, kept.signatures)


def funds(net: Net, client: Client) -> list[int]:
    """What a client has free at each honest witness."""
    accounts = [witness.context.ledger.vault.account(client.key) for witness in net.honest]
    return [account.free_ucr for account in accounts]


@pytest.mark.parametrize(("count", "threshold"), [(1, 1), (3, 2), (4, 3), (7, 5)])
def test_a_deposit_is_certified_shown_and_claimed(count: int, threshold: int) -> None:
    """Locked at all, believed by the payee, paid by voucher, the rest back at the deadline."""
    net, payer, payee = market(count, threshold)
    for client in (payer, payee):
        net.connect_all(client)
    channel = deposit(net, payer, payee, 1, 60)
    assert payer.told == [("funded", channel.cid)]
    assert funds(net, payer) == [GRANT - 60] * count
    taken = payee.accept(proof_of(payer, channel))
    assert taken is not None
    payee.paid(taken, payer.signer, 25)
    payee.quorum.claim(payee.context, taken)
    payee.flush()
    net.settle_down()
    assert funds(net, payee) == [25] * count
    payee.paid(taken, payer.signer, 31)
    payee.quorum.request_close(payee.context, taken)
    payee.flush()
    net.settle_down()
    assert ("challenged", channel.cid, 31) in payer.told
    net.advance(CHALLENGE_NS)
    net.settle_down()
    assert funds(net, payee) == [31] * count
    assert funds(net, payer) == [GRANT - 31] * count
    for client in (payer, payee):
        assert client.told[-1] == ("settled", channel.cid, 31)
        assert client.quorum.finalize(client.context, channel) == 31
        copy = Ledger(NETWORK, client.key)
        restore(copy, snapshot_parts(client.context.ledger))
        assert copy.backing == client.context.ledger.backing == client.replayed().backing
    for witness in net.honest:
        assert_sound(witness)


def test_a_payer_that_closes_low_is_answered() -> None:
    """The payee learns of it from any witness, and shows its voucher in time."""
    net, payer, payee = market()
    net.connect_all(payer)
    channel = deposit(net, payer, payee, 1, 60)
    taken = payee.accept(proof_of(payer, channel))
    assert taken is not None
    payee.paid(taken, payer.signer, 44)
    payer.quorum.request_close(payer.context, channel)  # knows of no voucher
    payer.flush()
    net.settle_down()
    payee.quorum.watch(payee.context, taken)
    payee.flush()
    net.connect_all(payee)
    net.advance(CHALLENGE_NS)
    assert funds(net, payee) == [44] * 4
    assert funds(net, payer) == [GRANT - 44] * 4


def test_a_voucher_after_the_deadline_is_too_late() -> None:
    """`channel.too_late`; the settlement stands, and is told again as it was."""
    net, payer, payee = market()
    net.connect_all(payer)
    channel = deposit(net, payer, payee, 1, 60)
    taken = payee.accept(proof_of(payer, channel))
    assert taken is not None
    payee.paid(taken, payer.signer, 44)
    payer.quorum.request_close(payer.context, channel)
    payer.flush()
    net.settle_down()
    net.advance(CHALLENGE_NS)
    before = funds(net, payee), funds(net, payer)
    payee.quorum.claim(payee.context, taken)
    net.connect_all(payee)
    assert (funds(net, payee), funds(net, payer)) == before == ([0] * 4, [GRANT] * 4)
    assert payee.quorum.finalize(payee.context, taken) in (0, None)
    net.settle_down()


def test_an_agreed_close_settles_at_once() -> None:
    """Both signatures, no challenge period; a lower total than was claimed changes nothing."""
    net, payer, payee = market()
    for client in (payer, payee):
        net.connect_all(client)
    channel = deposit(net, payer, payee, 1, 60)
    taken = payee.accept(proof_of(payer, channel))
    assert taken is not None
    by_payer = payer.signer.sign(signing.close_bytes(NETWORK, channel.cid, 20))
    by_payee = payee.signer.sign(signing.close_ack_bytes(NETWORK, channel.cid, 20))
    for end in (payer, payee):
        end.quorum.settle_agreed(end.context, channel.cid, 20, by_payer, by_payee)
        end.flush()
    net.settle_down()
    assert (funds(net, payee), funds(net, payer)) == ([20] * 4, [GRANT - 20] * 4)
    assert payer.told[-1] == payee.told[-1] == ("settled", channel.cid, 20)


def test_a_top_up_raises_the_same_channel() -> None:
    """The second order locks the difference; more than there is refuses it, by name."""
    net, payer, payee = market()
    net.connect_all(payer)
    channel = deposit(net, payer, payee, 1, 60)
    for amount in (90, 110):
        payer.quorum.top_up(payer.context, channel, amount)
        payer.flush()
        net.settle_down()
    assert funds(net, payer) == [10] * 4
    assert payer.told[1:] == [
        ("funded", channel.cid),
        ("refused", channel.cid, "witness.no_funds"),
    ]
    assert payer.quorum.top_up(payer.context, channel, 90)


def test_a_witness_that_was_away_catches_up() -> None:
    """It is sent the certificates that it missed, and signs on top of them."""
    net, payer, payee = market()
    away = net.honest[0]
    for witness in net.honest[1:]:
        net.up(payer, witness)
    for salt in range(3):
        deposit(net, payer, payee, salt, 10)
    assert away.context.ledger.vault.channels == {}
    net.connect_all(payer)
    deposit(net, payer, payee, 9, 10)
    assert funds(net, payer) == [GRANT - 40] * 4
    assert away.context.ledger.vault.accounts[payer.key].next_order == 4


def test_restarts_at_every_action_change_nothing() -> None:
    """A witness and the payer crash after each of their actions: the deposit is certified once."""
    for survive in range(6):
        net, payer, payee = market()
        net.connect_all(payer)
        channel = payer.open(payer.key, payee.key, 1, 60)
        payer.flush()
        payer.quorum.top_up(payer.context, channel, 60)
        payer.flush(survive)
        for _ in range(40):
            for pair in net.waiting():
                if net.queues.get(pair):
                    net.deliver(pair, survive % 3)
            net.connect_all(payer)
        backing = payer.context.ledger.backing
        if backing.ordered_ucr(channel.cid):  # else it crashed before it had logged the order
            assert backing.proved_ucr(channel.cid) == 60
            assert funds(net, payer) == [GRANT - 60] * 4
        for witness in net.honest:
            assert_sound(witness)


def test_silent_witnesses_up_to_the_spare_ones_are_borne() -> None:
    """n - t do not answer: certified all the same; one more, and it is not."""
    net, payer, payee = market(4, 3)
    for witness in net.honest[:2]:
        net.up(payer, witness)
    channel = deposit(net, payer, payee, 1, 60)
    assert payer.told == []
    net.up(payer, net.honest[2])
    net.settle_down()
    assert payer.told == [("funded", channel.cid)]


def test_the_same_number_is_never_signed_twice() -> None:
    """Two orders of one number, and one beyond the next: refused by name, once and again."""
    net, payer, payee = market()
    witness = net.honest[0]
    net.up(payer, witness)
    orders = []
    for salt, sequence in ((1, 0), (2, 0), (3, 1)):
        cid = payer.open(payer.key, payee.key, salt, 60).cid
        signed = signing.order_bytes(NETWORK, cid, 60, sequence)
        channel = payer.context.ledger.channels[cid]
        payer.quorum._deposits.order(channel, 60)
        order = payer.context.ledger.backing.orders[len(orders)]
        order = replace(order, sequence=sequence, signature=payer.signer.sign(signed))
        orders.append(order)
    payer.context.take_actions()
    answers = []
    for order in (*orders, orders[0]):
        witness.take(SessionKey(payer.key, False), messages.LockAsk(order, ()))
        witness.flush()
        answers.append(net.queues[witness.key, payer.key].pop()[1])
    assert isinstance(answers[0], messages.LockReceipt)
    assert [answer.code for answer in answers[1:3]] == ["witness.conflict", "witness.behind"]
    assert answers[3] == answers[0]


@pytest.mark.parametrize("fault", ["one too few", "one twice", "a stranger's", "a forged one"])
def test_a_proof_that_is_not_one(fault: str) -> None:
    """Signatures of t distinct witnesses, all good, or no channel."""
    net, payer, payee = market()
    net.connect_all(payer)
    proof = proof_of(payer, deposit(net, payer, payee, 1, 60))
    good = proof.signatures
    bad = {
        "one too few": good[:2],
        "one twice": (*good[:2], good[1]),
        "a stranger's": (*good[:2], WitnessSignature(signer("x").public_key, good[2].signature)),
        "a forged one": (*good[:2], replace(good[2], signature=bytes(64))),
    }[fault]
    with pytest.raises(RemoteError, match=r"witness\.bad_signature"):
        payee.quorum.take_proof(payer.key, replace(proof, signatures=bad))
    assert payee.accept(replace(proof, signatures=bad)) is None
    assert payee.accept(proof) is not None


def test_a_liar_can_not_settle_for_the_others() -> None:
    """One of four says 0: both ends go by what three say."""
    net, payer, payee = market(4, 3, liars=1)
    for client in (payer, payee):
        net.connect_all(client)
    channel = deposit(net, payer, payee, 1, 60)
    taken = payee.accept(proof_of(payer, channel))
    assert taken is not None
    payee.paid(taken, payer.signer, 33)
    payee.quorum.request_close(payee.context, taken)
    payee.flush()
    net.settle_down()
    net.advance(CHALLENGE_NS)
    net.settle_down()
    assert payee.told[-1] == payer.told[-1] == ("settled", channel.cid, 33)
