"""What the control socket offers, over a running daemon."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from peer.asking import parse_options, to_ask
from peer.cheque_reports import cheque_methods
from peer.control import Answer, Json, Method
from peer.daemon import Daemon
from peer.identity import peer_id
from peer.insight import insight_methods
from peer.offered import offered_models
from peer.past import read_jobs, read_receipt
from peer.reports import archive_json, balance_json, channel_json, event_json, head_json
from peer.trust import deposit_methods, trust_methods
from peer.upkeep import archive_daemons, sign_daemons_head
from protocol import limits
from protocol.errors import ConfigError, NetworkError
from protocol.quantization import known
from protocol.units import milliseconds

_CLOSE_S = 10.0
_CONNECT_S = 5.0
# A reader goes through the whole log: one after the other.
_READERS = trio.CapacityLimiter(1)

T = TypeVar("T")


def status_json(daemon: Daemon) -> Json:
    """Who and where this node is, what it sells, how the models do, and its money.

    `served` has, by model, what was done since the start and how promises were kept; `bids`
    how many were sent, withheld as they could not win, and not made, by the code that says why.
    """
    offers = daemon.node.provider.offers.values()
    return {
        "peer_id": daemon.network.peer_id,
        "addresses": list(daemon.network.addresses),
        "network": daemon.settings.network.network,
        "peers": [peer_id(peer) for peer in daemon.network.peers],
        "topic_peers": daemon.network.topic_peers(),
        "models": [
            {
                "name": offer.name,
                "sha256": offer.digest.hex(),
                "context_tokens": offer.context_tokens,
                "quantization": known(offer.quantization),
                "input_price_ucr": offer.input_price_ucr,
                "output_price_ucr": offer.output_price_ucr,
                "tokens_per_s": offer.tokens_per_s_milli / 1000,
                "ttft_ms": milliseconds(offer.ttft_ns),
                "places": offer.places,
                "queue_jobs": offer.queue_jobs,
            }
            for offer in offers
        ],
        "engine": [asdict(health) for health in daemon.jobs.health()] if daemon.jobs else [],
        "served": daemon.jobs.meters() if daemon.jobs else {},
        "bids": {
            "sent": daemon.node.provider.placing.sent,
            "withheld": daemon.node.provider.self_selection.withheld,
            "not_made": dict(daemon.node.provider.placing.silences.counts),
        },
        "running_jobs": daemon.node.provider.rooms.running,
        "open_requests": daemon.node.requester.open_jobs,
        "records": daemon.journal.durable_sequence + 1,
        "balance": balance_json(daemon.ledger.balance()),
    }


def control_methods(daemon: Daemon) -> dict[str, Method]:
    """The methods by name: status, ask, models, history, receipt, channels, close, head, archive,
    and those of cheques and of trust."""

    async def status(params: Json, answer: Answer) -> None:
        await answer(status_json(daemon))

    async def ask(params: Json, answer: Answer) -> None:
        options = parse_options(params)
        if not await daemon.wait_connected(_CONNECT_S):
            raise NetworkError("request.not_connected", "nobody listens on the topic")
        async with daemon.ask(to_ask(options, daemon.new_ask_id())) as stream:
            async for event in stream:
                await answer(event_json(event))

    async def models(params: Json, answer: Answer) -> None:
        await answer({"models": [asdict(model) for model in offered_models(daemon)]})

    async def history(params: Json, answer: Answer) -> None:
        last = params.get("last", limits.HISTORY_JOBS_MAX)
        if type(last) is not int or not 1 <= last <= limits.HISTORY_JOBS_MAX:
            most = limits.HISTORY_JOBS_MAX
            raise ConfigError("config.bad_value", f"last: a whole number from 1 to {most}")
        jobs = await _from_log(daemon, read_jobs)
        await answer({"jobs": jobs[-last:]})

    async def receipt(params: Json, answer: Answer) -> None:
        wanted = _digest(params.get("receipt_id"))
        await answer(await _from_log(daemon, partial(read_receipt, wanted=wanted)))

    async def channels(params: Json, answer: Answer) -> None:
        listed = [channel_json(item, live=True) for item in daemon.ledger.channels.values()]
        await answer({"channels": listed, "balance": balance_json(daemon.ledger.balance())})

    async def close(params: Json, answer: Answer) -> None:
        for event in await daemon.close_channels(_channel_ids(params), _CLOSE_S):
            await answer(event_json(event))

    async def head(params: Json, answer: Answer) -> None:
        found = await sign_daemons_head(daemon)
        context = daemon.node.context
        await answer(head_json(found, context.network, context.public_key))

    async def archive(params: Json, answer: Answer) -> None:
        where, keep = params.get("directory"), params.get("keep", 0)
        if not isinstance(where, str) or not isinstance(keep, int) or keep < 0:
            raise ConfigError("config.bad_value", "a directory, and how many to keep")
        await answer(archive_json(await archive_daemons(daemon, Path(where), keep)))

    return {
        "status": status,
        "ask": ask,
        "models": models,
        "history": history,
        "receipt": receipt,
        "channels": channels,
        "close": close,
        "head": head,
        "archive": archive,
        **insight_methods(daemon),
        **cheque_methods(daemon),
        **trust_methods(daemon, _channel_ids),
        **deposit_methods(daemon, _channel_ids),
    }


async def _from_log(daemon: Daemon, read: Callable[[Path, bytes], T]) -> T:
    """What a reader finds in the daemon's log, which it reads beside the loop."""
    owner = daemon.node.context.public_key
    return await trio.to_thread.run_sync(read, daemon.settings.directory, owner, limiter=_READERS)


def _digest(text: Any) -> bytes:
    """A receipt's id. ConfigError `config.bad_value`."""
    try:
        found = bytes.fromhex(text)
    except (TypeError, ValueError) as error:
        raise ConfigError("config.bad_value", "receipt_id: 64 hex digits") from error
    if len(found) != 32:
        raise ConfigError("config.bad_value", "receipt_id: 64 hex digits")
    return found


def _channel_ids(params: dict[str, Any]) -> tuple[bytes, ...]:
    try:
        return tuple(bytes.fromhex(text) for text in params.get("channels", ()))
    except (TypeError, ValueError) as error:
        raise ConfigError("config.bad_value", "channels are named in hex") from error
