"""The market's events as OpenAI's answers, whole or as server-sent events.

One `Choice` folds the events of one ask; `Shape` says it as chat or completion objects. Pure.
Rule: peer/gateway/README.md, "Answers".
"""

import base64
import codecs
import math
import secrets
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from peer.embedding_jobs import read_vectors
from peer.gateway.asks import Wanted
from peer.gateway.tools import find_call
from peer.identity import peer_id
from peer.reports import logprob_json, part_json
from protocol.errors import RemoteError
from protocol.fields import FinishReason, TokenLogprob
from protocol.units import format_credits, milliseconds
from protocol.wire import encode
from router import events

Json = dict[str, Any]

_FINISH = {FinishReason.LENGTH: "length"}


@dataclass(slots=True)
class Choice:
    """What has arrived of one choice."""

    index: int
    request_id: bytes = b""
    provider: bytes = b""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    done: events.Done | None = None
    failed: events.Failed | None = None
    ttft_ns: int = 0

    def add(self, event: events.AskEvent) -> None:
        """Fold one event in."""
        match event:
            case events.Published():
                self.request_id = event.request_id
            case events.Awarded():
                self.provider = event.provider
            case events.Text():
                self.ttft_ns = self.ttft_ns or event.at_ns
                self.provider = event.provider or self.provider
                self.pieces.append(event.text)
                self.logprobs += event.logprobs
            case events.Done():
                self.done = event
            case events.Failed():
                self.failed = event
            case _:
                pass

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)

    @property
    def paid_ucr(self) -> int:
        """What it cost, once it ended."""
        if self.done is not None:
            return self.done.cost_ucr
        return self.failed.paid_ucr if self.failed is not None else 0

    def finish_reason(self) -> str:
        """OpenAI's word for why the answer ended."""
        assert self.done is not None
        return _FINISH.get(self.done.receipt.finish_reason, "stop")

    def report(self) -> Json:
        """Who answered, for how much, with which receipt: the extension `peerd`. `parts` are the
        other lanes that were paid, where there were some."""
        assert self.done is not None
        receipt, done = self.done.receipt, self.done
        evidence = {}
        if done.signature:
            evidence = {"receipt": encode(receipt).hex(), "signature": done.signature.hex()}
        report = {
            "request_id": self.request_id.hex(),
            "provider": peer_id(receipt.payee),
            "cost": format_credits(done.cost_ucr),
            "cost_ucr": done.cost_ucr,
            "receipt_id": done.receipt_id.hex(),
            "model_sha256": receipt.profile.model_digest.hex(),
            "ttft_ms": milliseconds(self.ttft_ns),
            **evidence,
        }
        return report | ({"parts": list(map(part_json, done.others))} if done.others else {})

    def receipt_ids(self) -> list[str]:
        """All receipts of the choice, the last one first."""
        assert self.done is not None
        found = [self.done.receipt_id, *(part.receipt_id for part in self.done.others)]
        return [identity.hex() for identity in found if identity]


def usage(choices: list[Choice]) -> Json:
    """Counts over all choices: every choice is a job that was paid."""
    ends = [choice.done for choice in choices if choice.done is not None]
    read = sum(done.input_tokens for done in ends)
    made = sum(done.output_tokens for done in ends)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


class Offsets:
    """Where the tokens of one choice begin in its text, in characters; one that begins inside a
    character is there where the character is."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def next(self, piece: bytes) -> int:
        """That of the next token."""
        start = self._characters
        self._characters += len(self._decoder.decode(piece))
        return start


class Shape:
    """Says choices in the words of chat or of completions."""

    def __init__(self, wanted: Wanted, created_s: int) -> None:
        self._wanted = wanted
        self._kind = "chat.completion" if wanted.chat else "text_completion"
        prefix = "chatcmpl" if wanted.chat else "cmpl"
        self._head = {
            "id": f"{prefix}-{secrets.token_hex(12)}",
            "created": created_s,
            "model": wanted.model,
        }
        self._offsets = defaultdict[int, Offsets](Offsets)

    def whole(self, choices: list[Choice]) -> Json:
        """The complete answer. RemoteError `chunk.bad_vectors`."""
        if self._wanted.encoding:
            return self._vectors(choices)
        return {
            **self._head,
            "object": self._kind,
            "choices": [self._whole_choice(choice) for choice in choices],
            "usage": usage(choices),
            "peerd": [choice.report() for choice in choices],
        }

    def _vectors(self, choices: list[Choice]) -> Json:
        """OpenAI's list of embeddings, in the order of the texts."""
        vectors: list[bytes] = []
        for choice, ask in zip(choices, self._wanted.asks, strict=True):
            vectors += read_vectors(choice.text, len(ask.prompt.messages))
        if len({len(vector) for vector in vectors}) != 1:
            raise RemoteError("chunk.bad_vectors", "of two lengths", penalize=False)
        counts = usage(choices)
        return {
            "object": "list",
            "model": self._wanted.model,
            "data": [
                {"object": "embedding", "index": index, "embedding": self._encoded(vector)}
                for index, vector in enumerate(vectors)
            ],
            "usage": {name: counts[name] for name in ("prompt_tokens", "total_tokens")},
            "peerd": [choice.report() for choice in choices],
        }

    def _encoded(self, vector: bytes) -> str | list[float]:
        if self._wanted.encoding == "base64":
            return base64.b64encode(vector).decode()
        numbers = struct.unpack(f"<{len(vector) // 4}f", vector)
        if not all(map(math.isfinite, numbers)):  # JSON has no word for them
            raise RemoteError("chunk.bad_vectors", "not finite", penalize=False)
        return list(numbers)

    def _whole_choice(self, choice: Choice) -> Json:
        reason = choice.finish_reason()
        logprobs = self._logprobs(choice.index, choice.logprobs)
        common: Json = {"index": choice.index, "finish_reason": reason, "logprobs": logprobs}
        if not self._wanted.chat:
            return {**common, "text": choice.text}
        message: Json = {"role": "assistant", "content": choice.text, "refusal": None}
        call = find_call(choice.text, self._wanted.tool_names)
        if call is not None:
            message = {**message, "content": None, "tool_calls": [call]}
            common["finish_reason"] = "tool_calls"
        return {**common, "message": message}

    # --- as a stream -----------------------------------------------------------------------

    def _part(self, choices: list[Json], **more: Any) -> Json:
        kind = "chat.completion.chunk" if self._wanted.chat else self._kind
        part = {**self._head, "object": kind, "choices": choices, **more}
        if self._wanted.include_usage and "usage" not in more:
            part["usage"] = None
        return part

    def _delta(
        self, index: int, delta: Json, reason: str | None = None, logprobs: Json | None = None
    ) -> Json:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> Json | None:
        """A choice's next tokens in the words of chat, or of completions, where there is one list
        a field."""
        if not tokens:
            return None
        listed = [logprob_json(token) for token in tokens]
        if self._wanted.chat:
            for token in listed:
                del token["top_logprobs"][self._wanted.top_logprobs :]
            return {"content": listed, "refusal": None}
        return {
            "tokens": [token["token"] for token in listed],
            "token_logprobs": [token["logprob"] for token in listed],
            "top_logprobs": [
                {chance["token"]: chance["logprob"] for chance in token["top_logprobs"]}
                for token in listed
            ],
            "text_offset": [self._offsets[index].next(token.chosen.piece) for token in tokens],
        }

    def first(self, index: int) -> list[Json]:
        """What opens a choice."""
        if not self._wanted.chat:
            return []
        return [self._part([self._delta(index, {"role": "assistant", "content": ""})])]

    def text(self, index: int, event: events.Text) -> list[Json]:
        """More text of a choice; with tools it waits for the end, which says what it is."""
        logprobs = self._logprobs(index, event.logprobs)
        if self._wanted.tool_names or not (event.text or logprobs):
            return []
        if self._wanted.chat:
            delta = self._delta(index, {"content": event.text}, logprobs=logprobs)
            return [self._part([delta])]
        choice = {
            "index": index,
            "text": event.text,
            "logprobs": logprobs,
            "finish_reason": None,
        }
        return [self._part([choice])]

    def last(self, choice: Choice) -> list[Json]:
        """The end of a choice, with its report."""
        reason, parts = choice.finish_reason(), []
        if self._wanted.tool_names:
            call = find_call(choice.text, self._wanted.tool_names)
            delta: Json = {"content": choice.text}
            if call is not None:
                reason, delta = "tool_calls", {"tool_calls": [{"index": 0, **call}]}
            parts.append(self._part([self._delta(choice.index, delta)]))
        end: Json = self._delta(choice.index, {}, reason)
        if not self._wanted.chat:
            end = {"index": choice.index, "text": "", "logprobs": None, "finish_reason": reason}
        parts.append(self._part([end], peerd=[choice.report()]))
        return parts

    def usage_part(self, choices: list[Choice]) -> list[Json]:
        """The counts, where they were asked for."""
        if not self._wanted.include_usage:
            return []
        return [self._part([], usage=usage(choices))]
