"""Why requests went where they went, and what is known of providers, as JSON; by control socket.

Explanations of this run are complete; of earlier ones the log has the awards and their outcomes.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import trio

from peer.control import Answer, Json, Method
from peer.daemon import LOG_DIRECTORY, Daemon
from peer.identity import peer_id
from peer.journal import log_reader
from protocol import records
from protocol.errors import CODES, ConfigError, LocalError, StorageError
from protocol.fields import AwardRole
from protocol.log import ScanOutcome
from protocol.quantization import known
from protocol.units import milliseconds
from router import actions as act
from router.counting import MILLI, Counts
from router.explaining import Considered, Explanation, Tried, judged_awards
from router.reputation import Reputation, Standing, usual

_READERS = trio.CapacityLimiter(1)
_REQUEST_HEX_MIN = 6
VERDICTS = {"good": 1, "bad": 2}


def explanation_json(found: Explanation) -> Json:
    """All of one request; bids best first, refused ones last."""
    ask, choice = found.ask, found.ask.choice
    considered = sorted(
        found.considered, key=lambda one: (one.code != "", choice.place(one.provider), one.score)
    )
    return {
        "request_id": found.request_id.hex(),
        "model": ask.model,
        "started_at_ns": found.started_at_ns,
        "weights": {
            "price": ask.strategy.price_weight,
            "latency": ask.strategy.latency_weight,
            "reputation": choice.reputation_weight,
        },
        "filters": {
            "price_max_ucr": ask.price_max_ucr,
            "timeout_ms": milliseconds(ask.timeout_ns),
            "only": [peer_id(key) for key in ask.filters.providers_only],
            "ignore": [peer_id(key) for key in ask.filters.providers_ignored],
            "reputation_min": choice.reputation_min,
            "completed_min": choice.completed_min,
            "market_factor_percent": choice.market_factor_milli // 10,
            "quantizations": list(choice.quantizations),
            "order": [peer_id(key) for key in choice.order],
            "input_price_max_ucr": choice.input_price_max_ucr,
            "output_price_max_ucr": choice.output_price_max_ucr,
        },
        "race": choice.race,
        "hedge_percent": choice.hedge_factor_milli // 10,
        "fallbacks": choice.fallbacks,
        "median_ucr": found.median_ucr or None,
        "quote": choice.quote,
        "bids": [_considered_json(one) for one in considered],
        "bids_left_out": found.left_out,
        "asked_again": found.asked_again,
        "awards": [_tried_json(one) for one in found.tried],
        "continued_by": [request_id.hex() for request_id in found.continued_by],
        "paid_ucr": found.paid_ucr,
        "receipt_id": found.receipt_id.hex() or None,
        "code": found.code or None,
        "detail": found.detail or None,
        "ended": bool(found.ended_at_ns),
        "source": "memory",
    }


def _considered_json(one: Considered) -> Json:
    return {
        "provider": peer_id(one.provider),
        "from": "offer" if one.from_offer else "bid",
        "input_price_ucr": one.input_price_ucr,
        "output_price_ucr": one.output_price_ucr,
        "ttft_ms": milliseconds(one.ttft_ns),
        "tokens_per_s": one.tokens_per_s_milli / 1000,
        "quantization": known(one.quantization),
        "cost_max_ucr": one.cost_max_ucr,
        "effective_ucr": one.effective_ucr,
        **_counts_json(one.counts),
        "latency_ms": milliseconds(one.latency_ns),
        "score": one.score,
        "reputation": one.reputation,
        "suspended": one.suspended,
        "at_ms": milliseconds(one.at_ns),
        "refused": one.code or None,
        "reason": one.detail or CODES.get(one.code),
    }


def _counts_json(counts: Counts) -> Json:
    """How many times the tokens of others a provider counts for the same text."""
    return {
        "input_count": counts.input_milli / MILLI,
        "output_count": counts.output_milli / MILLI,
    }


def _tried_json(one: Tried) -> Json:
    return {
        "provider": peer_id(one.provider),
        "role": one.role.name.lower(),
        "at_ms": milliseconds(one.at_ns),
        "outcome": one.outcome.name.lower() if one.outcome else None,
        "code": one.code or None,
        "paid_ucr": one.paid_ucr,
    }


def explain_from_log(directory: Path, wanted: bytes) -> Json:
    """The awards of a request, and of those that went on with it, by the log: what lasts.
    LocalError `request.unknown`; StorageError."""
    if not (directory / LOG_DIRECTORY).exists():
        raise LocalError("request.unknown", wanted.hex())
    named, first = set[bytes](), dict[bytes, bytes]()  # request -> where its answer began
    for record in _records(directory):
        if record.request_id.startswith(wanted):
            named.add(record.request_id)
        if isinstance(record, records.RequestContinued):
            first[record.by] = first.get(record.request_id, record.request_id)
    begun = {first.get(request, request) for request in named}
    if len(begun) != 1:
        raise LocalError("request.unknown", wanted.hex())
    parts = begun | {request for request, root in first.items() if root in begun}
    every = [record for record in _records(directory) if record.request_id in parts]
    awards = list(judged_awards(every))
    if not awards:
        raise LocalError("request.unknown", wanted.hex())
    return _awards_json(awards, begun.pop())


def _records(directory: Path) -> Iterator[Any]:
    """The records that say what became of requests. StorageError `storage.corrupt`."""
    told = (records.AwardJudged, records.AwardMade, records.RequestContinued)
    kinds = [records.NUMBERS[kind] for kind in told]
    reader = log_reader(directory / LOG_DIRECTORY)
    for entry in reader.entries():
        if entry.type in kinds:
            yield records.decode_record(entry.type, entry.payload)
    if reader.replay.outcome is ScanOutcome.CORRUPT:
        raise StorageError("storage.corrupt", reader.replay.detail)


def _awards_json(listed: list[tuple[records.AwardJudged, AwardRole]], request_id: bytes) -> Json:
    last, continued = listed[-1][0], [award.request_id for award, _ in listed]
    return {
        "request_id": request_id.hex(),
        "continued_by": [one.hex() for one in dict.fromkeys(continued) if one != request_id],
        "model": last.model,
        "bids": [],
        "awards": [
            {
                "provider": peer_id(award.provider),
                "role": role.name.lower(),
                "outcome": award.outcome.name.lower(),
                "code": award.code or None,
                "promised_ttft_ms": milliseconds(award.promised_ttft_ns),
                "ttft_ms": milliseconds(award.ttft_ns) if award.ttft_ns else None,
                "cost_max_ucr": award.cost_max_ucr,
                "paid_ucr": award.paid_ucr,
                "ended_at_ns": award.judged_at_ns,
            }
            for award, role in listed
        ],
        "paid_ucr": sum(award.paid_ucr for award, _ in listed),
        "receipt_id": last.receipt_id.hex() or None,
        "code": last.code or None,
        "ended": True,
        "source": "log",
    }


def standings_json(book: Reputation, now_ns: int) -> list[Json]:
    """Everybody that is known, best first."""
    sellers: dict[str, list[Standing]] = {}
    for (_, model), standing in book.standings.items():
        sellers.setdefault(model, []).append(standing)
    counts = {model: usual(known) for model, known in sellers.items()}
    listed = [
        {
            "provider": peer_id(provider),
            "model": model,
            "score": standing.score(now_ns),
            "ejected": standing.is_ejected(now_ns),
            "completed": standing.completed,
            "failed": standing.failed,
            "refused": standing.refused,
            "lied": standing.lied,
            "unreached": standing.unreached,
            "first_token_kept": standing.ttft_kept,
            "speed_kept": standing.speed_kept,
            "good_feedback": standing.liked,
            "bad_feedback": standing.disliked,
            "paid_ucr": standing.paid_ucr,
            **_counts_json(standing.counts(counts[model])),
        }
        for (provider, model), standing in book.standings.items()
    ]
    return sorted(listed, key=lambda one: (-one["score"], one["provider"], one["model"]))


def id_prefix(text: Any, of: str) -> bytes:
    """The beginning of the id of a request or receipt, in hex. ConfigError `config.bad_value`."""
    wanted = f"want 6 to 64 hex digits of the {of}'s id, an even number"
    try:
        found = bytes.fromhex(text)
    except (TypeError, ValueError) as error:
        raise ConfigError("config.bad_value", wanted) from error
    if not _REQUEST_HEX_MIN <= 2 * len(found) <= 64:
        raise ConfigError("config.bad_value", wanted)
    return found


def insight_methods(daemon: Daemon) -> dict[str, Method]:
    """The methods by name: explain, reputation, feedback."""

    async def explain(params: Json, answer: Answer) -> None:
        wanted = id_prefix(params.get("request_id"), "request")
        found = daemon.node.requester.explanations.find(wanted)
        if found is not None:
            await answer(explanation_json(found))
            return
        read = partial(explain_from_log, daemon.settings.directory, wanted)
        await answer(await trio.to_thread.run_sync(read, limiter=_READERS))

    async def reputation(params: Json, answer: Answer) -> None:
        now_ns = daemon.node.context.now_ns
        await answer({"providers": standings_json(daemon.ledger.reputation, now_ns)})

    async def feedback(params: Json, answer: Answer) -> None:
        wanted, verdict = id_prefix(params.get("receipt_id"), "receipt"), params.get("verdict")
        if verdict not in VERDICTS:
            raise ConfigError("config.bad_value", "feedback is good or bad")
        rated = daemon.ledger.reputation.rated
        found = [key for key in rated if key.startswith(wanted)]
        if len(found) != 1:
            raise LocalError("receipt.unknown", wanted.hex())
        daemon.driver.feed(act.GiveFeedback(found[0], VERDICTS[verdict]))
        await daemon.driver.wait_idle()
        of = rated[found[0]]
        standing = daemon.ledger.reputation.standing(of.provider, of.model)
        await answer(
            {
                "receipt_id": found[0].hex(),
                "provider": peer_id(of.provider),
                "model": of.model,
                "verdict": verdict,
                "score": standing.score(daemon.node.context.now_ns),
            }
        )

    return {"explain": explain, "reputation": reputation, "feedback": feedback}
