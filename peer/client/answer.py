"""An answer of the market as its events make it. Amounts in ucr and in credits."""

from dataclasses import dataclass, field
from typing import Any

from protocol.errors import CODES, PeerdError
from protocol.units import format_credits

Json = dict[str, Any]


class AskFailed(PeerdError):
    """A request that ended without a receipt; what had arrived cost `paid_ucr`, and for want of
    `short_ucr` it ended, if that is why."""

    def __init__(self, code: str, detail: str, paid_ucr: int, short_ucr: int = 0) -> None:
        known = code if code in CODES else "provider.refused"
        super().__init__(known, detail, short_ucr=short_ucr)
        self.paid_ucr = paid_ucr


@dataclass(slots=True)
class Answer:
    """A request's answer: complete when `receipt` is there.

    `bids`, `receipt` and `parts`, what was paid beside it, are as `peerd ask --json` has them.
    """

    request_id: str = ""
    provider: str = ""
    pieces: list[str] = field(default_factory=list)
    bids: list[Json] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    receipt: Json | None = None
    parts: list[Json] = field(default_factory=list)
    ttft_ms: float | None = None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)

    @property
    def cost_ucr(self) -> int:
        """What it cost, with all its parts; 0 until it is complete."""
        return self._sum("cost_ucr") or 0

    @property
    def cost(self) -> str:
        """What it cost, in credits."""
        return format_credits(self.cost_ucr)

    @property
    def receipt_id(self) -> str:
        """The receipt's name, in hex; "" until the answer is complete."""
        return str(self.receipt["receipt_id"]) if self.receipt else ""

    def add(self, event: Json) -> str:
        """Take the next event in; the text that it brought. AskFailed at a request's failure."""
        kind = event["event"]
        if kind == "text":
            if self.ttft_ms is None:
                self.ttft_ms = event["at_ms"]
            self.pieces.append(event["text"])
            self.logprobs += event.get("logprobs", ())
            return str(event["text"])
        if kind == "published":
            self.request_id = event["request_id"]
        elif kind == "bid":
            self.bids.append(event)
        elif kind == "award":
            self.provider = event["provider"]
        elif kind == "done":
            self.receipt, self.parts = event["receipt"], event.get("parts", [])
            self.provider = self.receipt.get("payee", self.provider)
        elif kind == "failed":
            short_ucr = event.get("short_ucr", 0)
            raise AskFailed(event["code"], event["detail"], event["paid_ucr"], short_ucr)
        return ""

    def _sum(self, name: str) -> int | None:
        """A count of the receipt and of all other parts; None until the answer is complete."""
        if self.receipt is None:
            return None
        return sum(int(lane[name]) for lane in (self.receipt, *self.parts))

    def report(self) -> Json:
        """The answer as one JSON object."""
        receipt = self.receipt or {}
        return {
            "answer": self.text,
            "request_id": self.request_id,
            "provider": self.provider,
            "model_sha256": receipt.get("model_sha256"),
            "input_tokens": self._sum("input_tokens"),
            "output_tokens": self._sum("output_tokens"),
            "finish_reason": receipt.get("finish_reason"),
            "ttft_ms": self.ttft_ms,
            "cost": self.cost,
            "cost_ucr": self.cost_ucr,
            "receipt_id": self.receipt_id,
            "parts": self.parts,
        }
