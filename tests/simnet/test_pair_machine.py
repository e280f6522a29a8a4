"""One payer and one payee, real logs on faulty disks, a hostile network: the money stays straight.

Source: router/README.md, "Money"; protocol/log.py. Narrower and faster than the market's machine,
so that it can be run long, in shards by `--hypothesis-seed`: README.md, "Tests".
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol import limits
from protocol.units import NS_PER_MS, NS_PER_S
from router import actions as act
from simnet.peer import WorldSettings
from tests.router.support import ADVANCE_UCR, engine, last_end, make_ask, offer, only, succeeded
from tests.simnet.disk_world import Choose, DiskWorld, Loss
from tests.simnet.watch import Watch

TOKENS = st.sampled_from([1, 10, 33, 70])
ENDS = st.integers(0, 1)
SEEDS = st.integers(0, 2**16)


def chooser(seed: int) -> Choose:
    """Numbers that a disk draws in a crash, all from one that Hypothesis can shrink."""
    state = seed

    def choose(below: int) -> int:
        nonlocal state
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        return (state >> 8) % below

    return choose


class Pair(RuleBasedStateMachine):
    """A provider (0) and a requester (1)."""

    held_ucr = 0

    def __init__(self) -> None:
        super().__init__()
        self.asks = 0

    @initialize(
        seed=st.integers(0, 1_000),
        input_tokens=st.sampled_from([12, 300]),
        advance=st.sampled_from([0, 500, ADVANCE_UCR]),
        fsync_ms=st.sampled_from([0, 8, 40]),
    )
    def build(self, seed: int, input_tokens: int, advance: int, fsync_ms: int) -> None:
        """Tokens every 20 ms, disks from instant to slower than the network."""
        self.world = DiskWorld(WorldSettings(seed=seed, fsync_ns=fsync_ms * NS_PER_MS + 1))
        self.world.add(engine(offer(places=3), input_tokens=input_tokens))
        self.world.add()
        self.provider, self.requester = self.world.peers
        self.watch = Watch(self.world, advance)

    # --- the market ------------------------------------------------------------------------

    @rule(tokens=TOKENS, deposit=st.sampled_from([0, 1_000_000]))
    def ask(self, tokens: int, deposit: int) -> None:
        """A job; several may share the channel."""
        self.asks += 1
        asked = make_ask(
            self.asks,
            tokens,
            advance_max_ucr=self.watch.advance_ucr,
            deposit_ucr=deposit,
            timeout_ns=20 * NS_PER_S,
            bid_window_ns=100 * NS_PER_MS,
            filters=only(self.provider),  # whatever its reputation
            holdback_ucr=self.held_ucr,
            audit_ns=20 * NS_PER_S if self.held_ucr else 0,
        )
        self.world.give(self.requester, asked)

    @rule(tokens=TOKENS, ms=st.integers(150, 900))
    def ask_and_wait(self, tokens: int, ms: int) -> None:
        """A job, up to anywhere between its award and its receipt."""
        self.ask(tokens=tokens, deposit=0)
        self.world.run(ms * NS_PER_MS)

    @rule(ms=st.integers(1, 50))
    def run_a_little(self, ms: int) -> None:
        """A few frames."""
        self.world.run(ms * NS_PER_MS)

    @rule(ms=st.integers(100, 3_000))
    def run_longer(self, ms: int) -> None:
        """A good part of a job."""
        self.world.run(ms * NS_PER_MS)

    @rule(back=st.integers(0, 2))
    def cancel(self, back: int) -> None:
        """The asker gives up."""
        self.world.give(self.requester, act.CancelAsk(self.asks - back))

    @rule()
    def close(self) -> None:
        """All channels should close."""
        self.world.give(self.requester, act.CloseChannels(()))

    # --- trouble ---------------------------------------------------------------------------

    @rule()
    def cut(self) -> None:
        """The stream breaks with what is in flight."""
        self.world.cut(self.provider, self.requester)

    @rule(who=ENDS, how=st.sampled_from(Loss), seed=SEEDS, again_ms=st.integers(0, 200))
    def crash_and_restart(self, who: int, how: Loss, seed: int, again_ms: int) -> None:
        """A node stops inside a write and comes back from its disk."""
        peer = self.world.peers[who]
        if peer.alive:
            self.world.stop_hard(peer, how, chooser(seed))
            self.world.run(again_ms * NS_PER_MS)
            self.world.restart(peer)

    @rule(who=ENDS, how=st.sampled_from(Loss), seed=SEEDS)
    def crash(self, who: int, how: Loss, seed: int) -> None:
        """A node stops and stays away."""
        if self.world.peers[who].alive:
            self.world.stop_hard(self.world.peers[who], how, chooser(seed))

    @precondition(
        lambda self: hasattr(self, "world") and not all(p.alive for p in self.world.peers)
    )
    @rule()
    def restart(self) -> None:
        """The dead come back."""
        for peer in self.world.peers:
            if not peer.alive:
                self.world.restart(peer)

    @rule(who=ENDS, operation=st.sampled_from(["pwrite", "fdatasync"]), after=st.integers(0, 3))
    def disk_fails(self, who: int, operation: str, after: int) -> None:
        """From some call on the disk gives errors: the node stops, and the next one has a new
        controller on the same platters."""
        self.world.disks[who].fail(operation, 5, after=after)

    @rule()
    def engine_breaks(self) -> None:
        """Every running job fails."""
        for job_id in list(self.provider.jobs):
            del self.provider.jobs[job_id]
            self.world.give(self.provider, act.JobBroke(job_id, "engine.crashed"))

    # --- always, and in the end ------------------------------------------------------------

    @invariant()
    def money_is_straight(self) -> None:
        """I1 to I6, replay and agreement hold between any two steps."""
        self.watch.check()

    def teardown(self) -> None:
        """Faults stop: what hangs ends, a new job is served, every channel settles."""
        if not hasattr(self, "watch"):
            return
        world = self.world
        for peer in world.peers:
            world.disks[peer.index].on.clear()
            if not peer.alive:
                world.restart(peer)
        world.run(60 * NS_PER_S)
        assert not self.requester.node.requester.open_jobs
        assert not self.provider.node.provider.serving.running
        self.watch.advance_ucr = ADVANCE_UCR  # so that a prompt over W is paid for
        self.asks += 1
        world.give(self.requester, make_ask(self.asks, filters=only(self.provider)))
        world.run(10 * NS_PER_S)
        assert succeeded(self.requester, self.asks), last_end(self.requester, self.asks)
        for _ in range(2):  # again, should a receipt have been waited for
            world.give(self.requester, act.CloseChannels(()))
            world.run(15 * NS_PER_S)
        # What was closed alone; a payee that never heard of it claims when its lifetime ends.
        world.run(limits.CHANNEL_LIFETIME_NS + 2 * limits.CHALLENGE_NS)
        self.watch.check_settled()


class WholePair(Pair):
    """With all that people do about channels, and what auditors say."""

    @rule(held_ucr=st.sampled_from([0, 600, 10**9]))
    def hold_back(self, held_ucr: int) -> None:
        """From now on, so much is paid only after an audit."""
        self.held_ucr = held_ucr

    @rule(passed=st.booleans())
    def audit(self, passed: bool) -> None:
        """A verdict on every lane that waits for one."""
        for channel in list(self.requester.node.context.ledger.channels.values()):
            for lane in list(channel.lanes):
                verdict: act.Input = act.Dispute(channel.cid, lane, "receipt.mismatch")
                if passed:
                    verdict = act.AuditPassed(channel.cid, lane)
                self.world.give(self.requester, verdict)

    @rule(more=st.sampled_from([1, 5_000, 20_000_000]))
    def top_up(self, more: int) -> None:
        """A person raises the deposit of the newest channel."""
        channels = list(self.requester.node.context.ledger.channels.values())
        if channels:
            deposit = channels[-1].deposit_ucr + more
            self.world.give(self.requester, act.TopUpChannel(channels[-1].cid, deposit))

    @rule(who=ENDS)
    def close_alone(self, who: int) -> None:
        """Either end closes its newest channel, whatever the other says; not so many that no new
        one could be opened for a day."""
        ledger = self.world.peers[who].node.context.ledger
        cids = list(ledger.channels)
        if ledger.open_channels > limits.CHANNELS_PER_PEER_MAX // 2:
            return
        self.world.give(self.world.peers[who], act.ForceClose(tuple(cids[-1:])))

    @rule(days=st.sampled_from([1, 3, 31]))
    def much_later(self, days: int) -> None:
        """Challenge periods and lifetimes pass."""
        self.world.run(days * 24 * 3_600 * NS_PER_S)


TestPair = WholePair.TestCase
