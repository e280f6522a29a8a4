"""Providers that lie: the chunk or answer is not taken, not paid, and the liar is blamed.

Each lie is signed by the provider that tells it, so that only the check under test can object.
Source: protocol/README.md, "Chunks"; what is lost never exceeds A or W.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol import signing
from protocol.channel import ChannelState
from protocol.messages import Accept, Award, Chunk, JobFailed, NeedVoucher, Refuse, Result
from protocol.transcript import transcript_next
from protocol.units import NS_PER_S, cost_ucr
from router import events
from simnet.peer import Peer
from simnet.world import World
from tests.router.support import (
    ADVANCE_UCR,
    assert_losses_bounded,
    channels,
    codes_against,
    failure,
    flipped,
    key_of,
    make_ask,
    make_world,
    retried,
    succeeded,
    tamper,
)

Lie = Callable[[Peer, Chunk], Any]


def signed_chunk(liar: Peer, chunk: Chunk, **changes: Any) -> Chunk:
    """The chunk with changes, signed again over its transcript."""
    changed = replace(chunk, **changes)
    layout = signing.chunk_bytes(
        "sim", changed.cid, changed.lane, changed.sequence, changed.transcript
    )
    return replace(changed, signature=liar.signer.sign(layout))


CHUNK_LIES: dict[str, tuple[str, Lie]] = {
    "hash": ("chunk.wrong_hash", lambda p, c: signed_chunk(p, c, transcript=bytes(32))),
    "text": ("chunk.wrong_hash", lambda p, c: signed_chunk(p, c, text="other")),
    "due": ("chunk.wrong_total", lambda p, c: signed_chunk(p, c, due_ucr=c.due_ucr + 1)),
    "due less": ("chunk.wrong_total", lambda p, c: signed_chunk(p, c, due_ucr=c.due_ucr - 1)),
    "output": ("chunk.too_many_tokens", lambda p, c: signed_chunk(p, c, output_tokens=41)),
    "input": ("chunk.too_many_tokens", lambda p, c: signed_chunk(p, c, input_tokens=513)),
    "signature": (
        "chunk.bad_signature",
        lambda _, c: replace(c, signature=flipped(c.signature)),
    ),
    "gap": ("chunk.out_of_order", lambda p, c: signed_chunk(p, c, sequence=c.sequence + 1)),
    "again": ("chunk.out_of_order", lambda _, c: (c, c)),
}


def continued(liar: Peer, before: Chunk, chunk: Chunk, **changes: Any) -> Chunk:
    """The chunk with other counts; price, transcript and signature fit them."""
    changed = replace(chunk, **changes)
    due = cost_ucr(changed.input_tokens, changed.output_tokens, 15_000_000, 50_000_000)
    transcript = transcript_next(
        before.transcript,
        changed.sequence,
        changed.text,
        changed.input_tokens,
        changed.output_tokens,
        due,
    )
    return signed_chunk(liar, changed, due_ucr=due, transcript=transcript)


LATER_LIES = {
    "input length": {"input_tokens": 11},
    "output falls": {"output_tokens": 1},
}


def lie_at(world: World, liar: Peer, sequence: int, lie: Lie) -> None:
    """Tell a lie in place of the chunk with this number."""
    tamper(
        world,
        liar,
        Chunk,
        lambda chunk: lie(liar, chunk) if chunk.sequence == sequence else chunk,
        times=10**6,
    )


@pytest.mark.parametrize("name", CHUNK_LIES)
def test_a_lie_in_the_first_chunk(name: str) -> None:
    """The liar is blamed, nothing is due, and the next bid serves the request."""
    code, lie = CHUNK_LIES[name]
    world = make_world(2)
    honest, liar, requester = world.peers
    lie_at(world, liar, 1, lie)
    world.give(requester, make_ask())
    world.run(20 * NS_PER_S)
    if name == "again":  # the first of the two was good: the request had begun to stream
        assert failure(requester) == code
    else:
        assert retried(requester) == [code]
        assert succeeded(requester)
        assert channels(requester)[0].due_ucr == 0
    assert codes_against(requester, liar) == [code]
    assert not codes_against(requester, honest)
    assert channels(requester)[0].state is ChannelState.FROZEN
    assert_losses_bounded(requester, liar)


@pytest.mark.parametrize("name", CHUNK_LIES)
def test_a_lie_mid_stream(name: str) -> None:
    """The asker hears the code and keeps the honest part, which alone is due."""
    code, lie = CHUNK_LIES[name]
    world = make_world(2)
    honest, liar, requester = world.peers
    lie_at(world, liar, 3, lie)
    world.give(requester, make_ask())
    world.run(20 * NS_PER_S)
    assert failure(requester) == code
    assert codes_against(requester, liar) == [code]
    assert not codes_against(requester, honest)
    good = requester.heard(events.Text)
    assert len(good) == (3 if name == "again" else 2)
    (channel,) = channels(requester)
    assert channel.due_ucr == good[-1].due_ucr == cost_ucr(12, len(good), 15_000_000, 50_000_000)
    assert channel.state is ChannelState.FROZEN
    assert not liar.jobs
    assert_losses_bounded(requester, liar)


@pytest.mark.parametrize("name", LATER_LIES)
def test_counts_that_change_their_past(name: str) -> None:
    """A prompt that changes its length, an output that shrinks: all else fits."""
    world = make_world(2)
    _, liar, requester = world.peers
    chunks: list[Chunk] = []

    def lie(chunk: Chunk) -> Chunk:
        chunks.append(chunk)
        if chunk.sequence != 3:
            return chunk
        return continued(liar, chunks[-2], chunk, **LATER_LIES[name])

    tamper(world, liar, Chunk, lie, times=3)
    world.give(requester, make_ask())
    world.run(20 * NS_PER_S)
    assert failure(requester) == "chunk.wrong_total"
    assert codes_against(requester, liar) == ["chunk.wrong_total"]


def test_a_chunk_that_is_made_again_is_taken_as_it_was() -> None:
    """The check of the check: the same tools make an honest chunk that passes."""
    world = make_world(2)
    _, liar, requester = world.peers
    chunks: list[Chunk] = []

    def remake(chunk: Chunk) -> Chunk:
        chunks.append(chunk)
        return continued(liar, chunks[-2], chunk) if chunk.sequence == 3 else chunk

    tamper(world, liar, Chunk, remake, times=3)
    world.give(requester, make_ask())
    world.run(20 * NS_PER_S)
    assert succeeded(requester)


def test_a_chunk_of_no_lane_is_dropped_and_the_hole_is_noticed() -> None:
    """A stray lane number alone is no offence; the missing chunk of the real lane is."""
    world = make_world()
    liar, requester = world.peers
    lie_at(world, liar, 2, lambda p, c: signed_chunk(p, c, lane=7))
    world.give(requester, make_ask())
    world.run(10 * NS_PER_S)
    assert failure(requester) == "chunk.out_of_order"
    assert codes_against(requester, liar) == ["chunk.out_of_order"]


# --- the start and the end of a lane -------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda m: replace(m, signature=flipped(m.signature)), "channel.bad_signature"),
        (lambda m: (m, m), "channel.wrong_state"),
        (lambda m: (JobFailed(m.cid, m.lane, "engine.crashed"),), "session.protocol"),
        (lambda _: None, "channel.wrong_state"),  # the first chunk comes unannounced
    ],
    ids=["signature", "twice", "failed before accepting", "missing"],
)
def test_a_dishonest_acceptance(change: Callable[[Accept], Any], code: str) -> None:
    """Blamed, and the next bid is tried: nothing had been delivered."""
    world = make_world(2)
    honest, liar, requester = world.peers
    tamper(world, liar, Accept, change)
    world.give(requester, make_ask())
    world.run(20 * NS_PER_S)
    assert codes_against(requester, liar) == [code]
    assert not codes_against(requester, honest)
    assert succeeded(requester)
    assert requester.heard(events.Awarded)[-1].provider == key_of(honest)


def test_a_refusal_after_accepting() -> None:
    """An accepted lane ends by a result or a failure, never by a refusal."""
    world = make_world(2)
    _, liar, requester = world.peers
    awards: list[bytes] = []

    def remember(award: Award) -> Award:
        awards.append(award.request_id)
        return award

    tamper(world, requester, Award, remember)
    tamper(world, liar, Accept, lambda m: (m, Refuse(awards[0], "provider.busy")))
    world.give(requester, make_ask())
    world.run(20 * NS_PER_S)
    assert codes_against(requester, liar) == ["session.protocol"]


@pytest.mark.parametrize(
    ("total", "told"), [(50_000, None), (ADVANCE_UCR + 10, "channel.advance_limit")]
)
def test_a_provider_that_wants_money_first(total: int, told: str | None) -> None:
    """Up to A it gets it, delivered or not; over A the asker is told: at most A is lost."""
    world = make_world()
    greedy, requester = world.peers
    tamper(world, greedy, Accept, lambda m: (m, NeedVoucher(m.cid, m.lane, total)))
    tamper(world, greedy, Chunk, lambda _: None, times=10**6)
    tamper(world, greedy, Result, lambda _: None)
    world.give(requester, make_ask(timeout_ns=20 * NS_PER_S))
    world.run(30 * NS_PER_S)
    assert failure(requester) == (told or "chunk.stalled")
    (channel,) = channels(requester)
    assert channel.due_ucr == 0
    assert channel.total_ucr == (total if told is None else channel.total_ucr)
    assert channel.total_ucr <= ADVANCE_UCR
