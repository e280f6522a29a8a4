"""A request's events collected into the one object that `--json` prints."""

from typing import Any

Json = dict[str, Any]


class AskRecord:
    """What happened to one request, from its events as JSON (`peer.reports.event_json`)."""

    def __init__(self) -> None:
        self.request_id = ""
        self.bids: list[Json] = []
        self.award: Json | None = None
        self.retries: list[Json] = []
        self.vouchers: list[Json] = []
        self.pieces: list[str] = []
        self.continued: list[Json] = []
        self.parts: list[Json] = []
        self.cost_ucr: int | None = None
        self.logprobs: list[Json] = []
        self.receipt: Json | None = None
        self.failure: Json | None = None
        self.quote: list[Json] | None = None
        self._first_text: Json | None = None
        self._last_text: Json | None = None
        self._total_ms: float | None = None
        self._awards: dict[str, Json] = {}

    def add(self, event: Json) -> None:
        """Take the next event in."""
        kind = event["event"]
        if kind == "published":
            self.request_id = event["request_id"]
        elif kind == "bid":
            self.bids.append(_without_kind(event))
        elif kind == "award":
            self.award = _without_kind(event)
            self._awards[event["provider"]] = self.award
        elif kind == "retry":
            self.retries.append(_without_kind(event))
        elif kind == "voucher":
            self.vouchers.append(_without_kind(event))
        elif kind == "text":
            self.pieces.append(event["text"])
            self.logprobs += event.get("logprobs", ())
            self._first_text = self._first_text or event
            self._last_text = event
        elif kind == "done":
            self.receipt, self.parts = event["receipt"], event["parts"]
            self.cost_ucr, self._total_ms = event["cost_ucr"], event["at_ms"]
            self.award = self._awards.get(event["receipt"]["payee"], self.award)
        elif kind == "continuing":
            self.continued.append(_without_kind(event))
        elif kind == "quote":
            self.quote = event["bids"]
        elif kind == "failed":
            self.failure = _without_kind(event)
            self.cost_ucr, self._total_ms = event["paid_ucr"], event["at_ms"]

    @property
    def answer(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def _sum(self, name: str) -> int | None:
        if self.receipt is None:
            return None
        return sum(int(lane[name]) for lane in (self.receipt, *self.parts))

    def summary(self) -> Json:
        """The object; `receipt_ok` says that the receipt was checked and counter-signed."""
        return {
            "request_id": self.request_id,
            "bids": self.bids,
            "award": self.award,
            "retries": self.retries,
            "continued": self.continued,
            "vouchers": self.vouchers,
            "answer": self.answer,
            **({"logprobs": self.logprobs} if self.logprobs else {}),
            "input_tokens": self._sum("input_tokens"),
            "output_tokens": self._sum("output_tokens"),
            "cost_ucr": self.cost_ucr,
            "receipt_ok": self.receipt is not None,
            "receipt": self.receipt,
            "parts": self.parts,
            "error": self.failure,
            **({"quote": self.quote} if self.quote is not None else {}),
            "delivery": self._delivery(),
            "timings_ms": {
                "request_to_first_bid": min((bid["at_ms"] for bid in self.bids), default=None),
                "request_to_award": self.award["at_ms"] if self.award else None,
                "request_to_first_token": self._first_text["at_ms"] if self._first_text else None,
                "total": self._total_ms,
            },
        }

    def _delivery(self) -> Json | None:
        """What the provider of the first text promised, and what came of it by our own clock, the
        network included; None without text. Chunks hold several tokens, so short answers have no
        speed, and those of several providers none either."""
        award = self._awards.get(self.continued[0]["provider"]) if self.continued else self.award
        first = last = self._first_text
        if not self.continued:
            last = self._last_text
        if first is None or last is None or award is None:
            return None
        bids = [bid for bid in self.bids if bid["provider"] == award["provider"]]
        seconds = (last["at_ms"] - first["at_ms"]) / 1_000
        tokens = last["output_tokens"] - first["output_tokens"]
        return {
            "ttft_ms": round(first["at_ms"] - award["at_ms"], 3),
            "promised_ttft_ms": bids[-1]["ttft_ms"] if bids else None,
            "tokens_per_s": round(tokens / seconds, 1) if seconds > 0 and tokens else None,
            "promised_tokens_per_s": bids[-1]["tokens_per_s"] if bids else None,
        }


def _without_kind(event: Json) -> Json:
    return {key: value for key, value in event.items() if key != "event"}
