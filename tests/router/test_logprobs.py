"""Log-probabilities on the wire: with the chunk of their tokens, signed, and only when asked for.

Source: protocol/README.md, "42 Chunk", "Transcript".
"""

from dataclasses import replace
from itertools import pairwise

import pytest

from protocol.fields import GenerationParameters, TokenChance, TokenLogprob
from protocol.messages import Chunk
from protocol.transcript import transcript_next, transcript_start
from protocol.units import NS_PER_S
from router import actions as act
from router import events
from simnet.peer import Peer
from simnet.world import World
from tests.router.hand_payer import NETWORK, HandPayer, Shop, of_kind, said
from tests.router.support import codes_against, make_ask, make_world, retried, succeeded, tamper

ASKED = GenerationParameters(40, 0, 0, 1000, 1, (), logprobs=2)


def scored(number: int, top: int = 2) -> TokenLogprob:
    """A token's scores that are told from others by `number`."""
    chance = TokenChance(b"x", -number)
    return TokenLogprob(chance, (chance,) * top)


def test_each_chunk_has_those_of_its_tokens() -> None:
    """Forty tokens at once and one more: pieces are cut, scores go with the tokens in order."""
    payer = HandPayer(Shop())
    request, bid = payer.ask()
    actions = payer.send(payer.award(request, bid, parameters=ASKED))
    (job,) = of_kind(actions, act.StartJob)
    assert job.parameters.logprobs == 2
    payer.shop.give(act.JobStarted(job.job_id, 12))
    scores = tuple(map(scored, range(41)))
    actions = payer.send(payer.voucher(100_000))
    tokens = act.JobTokens(job.job_id, (("abcdefghij" * 4, 40),), scores[:40])
    actions += payer.shop.give(tokens)
    actions += payer.shop.give(act.JobTokens(job.job_id, (("k", 1),), scores[40:]))
    chunks = [message for message in said(actions) if isinstance(message, Chunk)]
    assert len(chunks) == 3
    counts = [0, *(chunk.output_tokens for chunk in chunks)]
    assert [len(chunk.logprobs) for chunk in chunks] == [
        after - before for before, after in pairwise(counts)
    ]
    assert sum((chunk.logprobs for chunk in chunks), ()) == scores
    transcript = transcript_start(
        NETWORK, request.digest, bid.digest, request.message.prompt_commitment
    )
    for chunk in chunks:
        transcript = transcript_next(
            transcript,
            chunk.sequence,
            chunk.text,
            chunk.input_tokens,
            chunk.output_tokens,
            chunk.due_ucr,
            chunk.logprobs,
        )
        assert chunk.transcript == transcript


def world_with(
    monkeypatch: pytest.MonkeyPatch, liar_tops: int, asked: int, count: int = 1
) -> World:
    """Two providers, the better one with `count` scores of `liar_tops` alternatives a token."""
    world = make_world(2)
    _, liar, requester = world.peers
    give = world.give

    def scoring(peer: Peer, item: act.Input) -> None:
        if isinstance(item, act.JobTokens) and peer is not requester:
            top = liar_tops if peer is liar else asked
            each = count if peer is liar else bool(asked)
            item = replace(item, logprobs=(scored(7, top),) * each)
        give(peer, item)

    monkeypatch.setattr(world, "give", scoring)
    world.give(requester, make_ask(parameters=replace(ASKED, logprobs=asked)))
    world.run(20 * NS_PER_S)
    return world


def test_the_asker_gets_them_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 40, of the provider that won; text and price are what they are without."""
    world = world_with(monkeypatch, 2, 2)
    requester = world.peers[2]
    assert succeeded(requester)
    assert not retried(requester)
    texts = requester.heard(events.Text)
    assert sum((text.logprobs for text in texts), ()) == (scored(7),) * 40
    plain = world_with(monkeypatch, 0, 0, count=0).peers[2]
    assert [text.text for text in plain.heard(events.Text)] == [text.text for text in texts]
    assert plain.heard(events.Text)[-1].due_ucr == texts[-1].due_ucr


@pytest.mark.parametrize(
    ("tops", "asked"), [(1, 0), (3, 2)], ids=["not asked for", "too many alternatives"]
)
def test_what_was_not_asked_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, tops: int, asked: int
) -> None:
    """Signed and in the transcript, and still an offence; the next bid serves the request."""
    world = world_with(monkeypatch, tops, asked)
    honest, liar, requester = world.peers
    assert codes_against(requester, liar) == ["chunk.bad_logprobs"]
    assert retried(requester) == ["chunk.bad_logprobs"]
    assert not codes_against(requester, honest)
    assert succeeded(requester)


@pytest.mark.parametrize(("count", "code"), [(1, "chunk.wrong_hash"), (2, "chunk.bad_logprobs")])
def test_nobody_puts_others_in(count: int, code: str) -> None:
    """The transcript covers them, and there are no more than the chunk has tokens."""
    world = make_world(1)
    provider, requester = world.peers

    def change(chunk: Chunk) -> Chunk:
        return replace(chunk, logprobs=(scored(1),) * count)

    tamper(world, provider, Chunk, change)
    world.give(requester, make_ask(parameters=ASKED))
    world.run(20 * NS_PER_S)
    assert codes_against(requester, provider) == [code]
