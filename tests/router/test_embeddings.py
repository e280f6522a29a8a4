"""Embedding jobs on the market: who bids, what a chunk holds, what is due.

Source: protocol/README.md, "Embeddings".
"""

from dataclasses import replace

from protocol import limits
from protocol.fields import ChatMessage, InferenceType, Prompt
from protocol.messages import Chunk, Refuse, Result
from protocol.transcript import prompt_commitment
from protocol.units import cost_ucr
from router import actions as act
from router.actions import JobFinished
from tests.router.hand_payer import KEY, HandPayer, Shop, of_kind, said
from tests.router.support import offer
from tests.router.test_auction import make_request
from tests.router.test_quoting import make_quote, silence

TEXTS = Prompt(InferenceType.EMBEDDING, (ChatMessage("user", "a"), ChatMessage("user", "b")))
EMBEDS = replace(offer(), embeds=True)
ASKED = {
    "inference_type": InferenceType.EMBEDDING,
    "prompt_commitment": prompt_commitment(TEXTS, KEY),
}


def test_only_a_model_that_makes_them_is_bid() -> None:
    """The others stay silent; a model that embeds still writes."""
    request = make_request(inference_type=InferenceType.EMBEDDING)
    assert silence(request) == "engine.no_embeddings"
    assert make_quote(request, offer=EMBEDS) == make_quote(request, offer=EMBEDS)
    assert make_quote(make_request(), offer=EMBEDS)


def test_an_award_is_refused_when_the_model_makes_none_any_more() -> None:
    """As by a standing offer, which does not say what the model can do. No offence."""
    payer = HandPayer(Shop())
    payer.shop.give(act.OffersChanged((EMBEDS,)))
    request, bid = payer.ask(**ASKED)
    payer.shop.give(act.OffersChanged((offer(),)))
    actions = payer.send(payer.award(request, bid, prompt=TEXTS))
    assert said(actions) == [Refuse(request.digest, "engine.no_embeddings")]
    assert not of_kind(actions, act.Penalize)


def test_vectors_come_in_chunks_and_cost_their_input() -> None:
    """Pieces of no tokens are joined up to a chunk's text; nothing but the input is due."""
    payer = HandPayer(Shop())
    payer.shop.give(act.OffersChanged((EMBEDS,)))
    request, bid = payer.ask(**ASKED)
    actions = payer.send(payer.award(request, bid, prompt=TEXTS))
    (job,) = of_kind(actions, act.StartJob)
    assert job.prompt == TEXTS
    pieces = tuple((f"{number:x}" * 16_384, 0) for number in range(15))
    actions = payer.shop.give(act.JobStarted(job.job_id, 12))
    actions += payer.shop.give(act.JobTokens(job.job_id, pieces))
    finished = JobFinished(job.job_id, act.FinishReason.STOP, 0, 5, 5, "embeddings", "")
    actions += payer.shop.give(finished)
    chunks = [message for message in said(actions) if isinstance(message, Chunk)]
    assert [len(chunk.text) for chunk in chunks] == [65_536, 65_536, 65_536, 49_152]
    assert limits.CHUNK_TEXT_CHARS_MAX == 65_536
    assert "".join(chunk.text for chunk in chunks) == "".join(text for text, _ in pieces)
    price = cost_ucr(12, 0, bid.message.input_price_ucr, 0)
    assert {(chunk.due_ucr, chunk.output_tokens) for chunk in chunks} == {(price, 0)}
    (result,) = [message for message in said(actions) if isinstance(message, Result)]
    assert (result.receipt.price_ucr, result.receipt.output_tokens) == (price, 0)
