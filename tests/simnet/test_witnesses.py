"""Jobs whose deposits witnesses hold: whole nodes on virtual time, from award to payout.

Source: router/README.md, "Anchors"; protocol/README.md, "Witnesses".
"""

from typing import Any

import pytest

from protocol import limits
from protocol.channel import Role
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from router.anchoring import AnchorSettings
from router.witness import Quorum
from simnet.entropy import Entropy
from simnet.peer import Peer, WorldSettings
from simnet.world import World
from tests.router.support import channels, engine, failure, make_ask, offer, succeeded

GRANT = 5_000_000
WITNESSES = 4  # peers 0 to 3; then the provider, then the requester
PROVIDER, REQUESTER = 4, 5


class Witnessed(World):
    """Four witnesses of which three must sign; `believing` peers use them as their anchor."""

    def __init__(self, believing: tuple[int, ...] = (PROVIDER, REQUESTER), **changes: Any) -> None:
        super().__init__(WorldSettings(**changes))
        seeds = (Entropy(self.settings.seed, f"peer {index}") for index in range(6))
        self.keys = [self.make_signer(entropy.bytes(32)).public_key for entropy in seeds]
        self.believing = believing
        for index in range(6):
            peer = self.add(engine(offer()) if index == PROVIDER else None)
            assert peer.signer.public_key == self.keys[index]
            self.give(peer, act.Started())

    def _anchor(self, peer: Peer) -> AnchorSettings:
        if peer.index >= WITNESSES and peer.index not in self.believing:
            return AnchorSettings(10_000_000)
        members = tuple(self.keys[:WITNESSES])
        return AnchorSettings(
            10_000_000,
            quorum=Quorum(members, 3),
            addresses={key: (f"/memory/{index}",) for index, key in enumerate(members)},
            serves=peer.index < WITNESSES,
            grants={self.keys[REQUESTER]: GRANT},
        )

    def revive(self, peer: Peer) -> None:
        """Start a crashed node as the daemon does."""
        self.restart(peer)
        self.give(peer, act.Started())

    @property
    def provider(self) -> Peer:
        return self.peers[PROVIDER]

    @property
    def requester(self) -> Peer:
        return self.peers[REQUESTER]

    def free(self, peer: Peer) -> list[int]:
        """What a peer has free at each witness; nothing is ever created or lost."""
        found = []
        for witness in self.peers[:WITNESSES]:
            vault = witness.node.context.ledger.vault
            total, granted = vault.total_ucr()
            assert total == granted == GRANT
            found.append(vault.account(peer.signer.public_key).free_ucr)
        return found


def bought(world: Witnessed, number: int = 1) -> int:
    """A job that is paid; the voucher that the provider holds in the end."""
    world.give(world.requester, make_ask(number))
    world.run(10 * NS_PER_S)
    assert succeeded(world.requester, number)
    (channel,) = [c for c in channels(world.provider, Role.PAYEE) if c.is_open]
    return channel.total_ucr


def test_a_job_is_served_on_a_deposit_that_witnesses_hold() -> None:
    """Locked at all four before the award, behind one channel."""
    world = Witnessed()
    bought(world)
    (channel,) = channels(world.provider, Role.PAYEE)
    assert world.free(world.requester) == [GRANT - channel.deposit_ucr] * WITNESSES
    proof = world.provider.node.context.ledger.backing.proof(channel.cid)
    assert proof is not None
    assert len(proof.signatures) >= 3


def test_the_provider_collects_alone() -> None:
    """With the requester gone for good, every witness pays the voucher out."""
    world = Witnessed()
    voucher = bought(world)
    world.crash(world.requester)
    world.give(world.provider, act.ClaimDeposits(()))
    world.run(5 * NS_PER_S)
    assert world.free(world.provider) == [voucher] * WITNESSES


def test_an_agreed_close_gives_the_rest_back() -> None:
    """At every witness, at once: what was paid is the provider's, the rest the requester's."""
    world = Witnessed()
    bought(world)
    world.give(world.requester, act.CloseChannels(()))
    world.run(5 * NS_PER_S)
    (channel,) = channels(world.requester, Role.PAYER)
    settled = channel.settled_ucr
    assert settled is not None
    assert world.free(world.provider) == [settled] * WITNESSES
    assert world.free(world.requester) == [GRANT - settled] * WITNESSES


def test_a_payer_without_witnesses_gets_no_job() -> None:
    """The provider wants a proof and says so; no promise is believed."""
    world = Witnessed(believing=(PROVIDER,))
    world.give(world.requester, make_ask())
    world.run(10 * NS_PER_S)
    assert failure(world.requester) == "channel.no_proof"


def test_funds_that_are_not_there_are_refused_before_the_award() -> None:
    """The witnesses refuse the order; the provider never hears of it."""
    world = Witnessed()
    world.give(world.requester, make_ask(deposit_ucr=GRANT + 1))
    world.run(10 * NS_PER_S)
    assert failure(world.requester) == "witness.no_funds"
    assert channels(world.provider) == []


@pytest.mark.parametrize("which", [0, REQUESTER])
def test_a_crash_in_the_middle_of_locking(which: int) -> None:
    """A witness or the requester restarts from its log; the next job is served, and the sums hold.

    The requester's broken order is certified after all: its number is never used for another.
    """
    world = Witnessed()
    world.give(world.requester, make_ask())
    world.run(NS_PER_S // 4)
    world.crash(world.peers[which])
    world.run(NS_PER_S)
    world.revive(world.peers[which])
    world.run(20 * NS_PER_S)
    world.give(world.requester, make_ask(2))
    world.run(20 * NS_PER_S)
    assert succeeded(world.requester, 2)
    world.free(world.requester)
    backing = world.requester.node.context.ledger.backing
    assert backing.pending() is None


def test_one_witness_is_down_and_comes_back() -> None:
    """Three are enough; the fourth is told what it missed."""
    world = Witnessed()
    world.crash(world.peers[3])
    bought(world)
    assert world.free(world.requester)[3] == GRANT
    world.revive(world.peers[3])
    world.run(30 * NS_PER_S)
    assert len(set(world.free(world.requester))) == 1


@pytest.mark.parametrize("alone", [PROVIDER, REQUESTER])
def test_either_end_closes_alone(alone: int) -> None:
    """The other is gone: after the challenge period the witnesses have paid the voucher and given
    the rest back, and who closed has it in its log."""
    world = Witnessed()
    voucher = bought(world)
    world.crash(world.peers[PROVIDER + REQUESTER - alone])
    end = world.peers[alone]
    world.give(end, act.ForceClose((channels(end)[0].cid,)))
    world.run(NS_PER_S)
    assert channels(end)[0].is_open
    world.run(limits.CHALLENGE_NS + 3_600 * NS_PER_S)
    (channel,) = channels(end)
    assert (channel.is_open, channel.settled_ucr) == (False, voucher)
    assert world.free(world.provider) == [voucher] * WITNESSES
    assert world.free(world.requester) == [GRANT - voucher] * WITNESSES


def test_an_award_that_is_off_while_its_deposit_is_locked() -> None:
    """The channel that it was to open is closed, and the next job opens another; found: it stood
    in the way of every later one, as an opening that waits for an award that never comes."""
    world = Witnessed()
    world.give(world.requester, make_ask(1))
    while not channels(world.requester):
        world.run(NS_PER_MS)
    world.give(world.requester, act.CancelAsk(1))
    world.run(NS_PER_S)
    assert [channel.is_open for channel in channels(world.requester)] == [False]
    world.give(world.requester, make_ask(2))
    world.run(10 * NS_PER_S)
    assert succeeded(world.requester, 2)
    world.give(world.requester, act.CloseChannels(()))
    world.run(limits.CHALLENGE_NS + 60 * NS_PER_S)
    (channel,) = channels(world.provider)
    assert world.free(world.requester) == [GRANT - (channel.settled_ucr or 0)] * WITNESSES
