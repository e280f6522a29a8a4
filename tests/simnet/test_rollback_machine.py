"""As the pair's machine, with one end's disk put back to an older state again and again.

What a log has forgotten no rule can keep, so these are weaker here than in test_pair_machine:

- I2, I3 and I5 are not asked for: a log that forgot a voucher, or a reservation, makes it again.
- A and W hold once more for each time that the disk was put back or the payee restarted, which
  then can't tell what it sent: so often the payer may lose A, and the payee W, on a channel.
- A payee that forgot a channel, or its close, has nothing to settle yet; its claim is at most what
  was signed. All other channels settle alike at both ends.

What stays: nobody honest is blamed, I1, I6, liveness. Source: router/README.md, "Money".
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from protocol.channel import Role
from protocol.messages import Award, Chunk, Voucher
from protocol.units import NS_PER_MS
from simnet.peer import Peer, WorldSettings
from tests.router.support import ADVANCE_UCR, W_UCR, engine, message_of, offer
from tests.simnet.disk_world import DiskWorld, Loss
from tests.simnet.test_pair_machine import SEEDS, Pair, chooser


class Seen:
    """What left each end for the network, whatever their logs say of it."""

    def __init__(self, world: DiskWorld) -> None:
        self.world = world
        self.advance_ucr = 0
        self.signed: dict[bytes, int] = {}
        self.sent: dict[bytes, dict[tuple[int, int], int]] = {}
        self.put_back = 0
        world.frame_filter = self._frame

    def _frame(self, source: Peer, _target: Peer, data: bytes) -> bytes:
        message = message_of(data)
        voucher = message.voucher if isinstance(message, Award) else message
        if isinstance(voucher, Voucher):
            channel = source.node.context.ledger.channels[voucher.cid]
            assert voucher.total_ucr <= channel.deposit_ucr, "I1: signed <= deposit"
            self.signed[voucher.cid] = max(voucher.total_ucr, self.signed.get(voucher.cid, 0))
        if isinstance(message, Chunk):
            # A forgotten lane's number may be used again: each life of it counts.
            lanes = self.sent.setdefault(message.cid, {})
            key = (message.lane, self.put_back)
            lanes[key] = max(message.due_ucr, lanes.get(key, 0))
        return data

    def check(self) -> None:
        """Between any two steps."""
        for peer in self.world.peers:
            assert not peer.penalized, f"an honest peer was blamed: {peer.penalized}"

    def check_settled(self) -> None:
        """In the end."""
        self.check()
        provider, requester = (peer.node.context.ledger for peer in self.world.peers)
        for cid, paying in requester.channels.items():
            assert paying.role is Role.PAYER
            earning = provider.channels.get(cid)
            if earning is None:
                continue  # the payee forgot all of it, and can't claim
            settled = paying.settled_ucr
            assert settled is not None, f"open at {paying.state}"
            if earning.settled_ucr is None:
                assert earning.total_ucr <= self.signed.get(cid, 0)
                continue  # the payee forgot the close, and settles when the lifetime ends
            assert settled == earning.settled_ucr, "conservation"
            assert settled <= self.signed.get(cid, 0), "I6: paid <= signed"
            sent = sum(self.sent.get(cid, {}).values())
            times = 1 + self.put_back + self.world.peers[0].incarnation
            assert sent - settled <= W_UCR * times, "the payee lost more than W"
            assert settled - sent <= ADVANCE_UCR * times, "the payer lost more than A"


class Rollbacks(Pair):
    """A provider (0) and a requester (1), one of whom restores old backups."""

    @initialize(
        seed=st.integers(0, 1_000),
        advance=st.sampled_from([0, 500, ADVANCE_UCR]),
        fsync_ms=st.sampled_from([0, 8, 40]),
    )
    def build(self, seed: int, advance: int, fsync_ms: int) -> None:
        """As the pair's, with short prompts."""
        self.world = DiskWorld(WorldSettings(seed=seed, fsync_ns=fsync_ms * NS_PER_MS + 1))
        self.world.add(engine(offer(places=3)))
        self.world.add()
        self.provider, self.requester = self.world.peers
        self.watch = self.seen = Seen(self.world)  # type: ignore[assignment]
        self.watch.advance_ucr = advance
        self.victim = self.world.peers[seed % 2]

    @rule(how=st.sampled_from(Loss), seed=SEEDS, commits=st.integers(0, 12))
    def put_back(self, how: Loss, seed: int, commits: int) -> None:
        """The victim stops, and comes back from an older copy of its disk."""
        if self.victim.alive:
            self.world.stop_hard(self.victim, how, chooser(seed))
        self.seen.put_back += 1
        self.world.put_back(self.victim, commits)
        self.world.restart(self.victim)


TestRollbacks = Rollbacks.TestCase
