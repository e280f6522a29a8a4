"""One answer that a cheque pays for: its price, and the receipt at its end. Decides nothing.

Rule: protocol/README.md, "Cheques".
"""

from dataclasses import dataclass, field

from protocol import transcript
from protocol.fields import (
    GenerationParameters,
    InferenceType,
    Prompt,
    TokenLogprob,
)
from protocol.messages import Receipt
from protocol.units import cost_ucr
from router import actions as act
from router.actions import ModelOffer, ServeCheque
from router.quoting import input_tokens_bound
from router.receipts import profile_of


@dataclass(slots=True)
class ChequeJob:
    """An answer that is being made; `cid` is the cheque's id, `most_ucr` its price at worst."""

    cid: bytes
    asked: ServeCheque
    offer: ModelOffer
    most_ucr: int
    started_at_ns: int
    input_tokens: int | None = None
    output_tokens: int = 0
    parts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    @property
    def due_ucr(self) -> int:
        """The price of what was made so far, and never more than was held for it."""
        if self.input_tokens is None:
            return 0
        prices = self.offer.input_price_ucr, self.offer.output_price_ucr
        made = cost_ucr(self.input_tokens, self.output_tokens, *prices)
        return min(made, self.most_ucr)

    def receipt(self, network: str, node: bytes, finished: act.JobFinished) -> Receipt:
        """What `node` delivered, when it is all there: the whole text as one chunk."""
        read, cid = self.input_tokens or 0, self.cid
        commitment = transcript.prompt_commitment(self.asked.prompt, cid)
        before = transcript.transcript_start(network, cid, cid, commitment)
        counts = read, self.output_tokens, self.due_ucr
        text = "".join(self.parts)
        return Receipt(
            request_id=cid,
            bid_id=cid,
            cid=cid,
            lane=0,
            payer=self.asked.cheque.user,
            payee=node,
            prompt_commitment=commitment,
            transcript=transcript.transcript_next(before, 1, text, *counts, tuple(self.logprobs)),
            input_tokens=read,
            output_tokens=self.output_tokens,
            chunks=1,
            price_ucr=self.due_ucr,
            started_at_ns=self.started_at_ns,
            ttft_ns=finished.ttft_ns,
            duration_ns=finished.duration_ns,
            finish_reason=finished.reason,
            profile=profile_of(finished, self.offer.digest, self.asked.parameters),
        )


def cost_max_ucr(offer: ModelOffer, prompt: Prompt, parameters: GenerationParameters) -> int:
    """What an answer costs at most, by the tariff that bids are made from."""
    read = input_tokens_bound(prompt)
    made = 0
    if prompt.inference_type is not InferenceType.EMBEDDING:
        read, made = min(read, offer.context_tokens), parameters.output_tokens_max
    return cost_ucr(read, made, offer.input_price_ucr, offer.output_price_ucr)
