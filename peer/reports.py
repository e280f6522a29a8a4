"""Values of the cores as plain JSON: peers by peer id, digests in hex, amounts in ucr.

What `--json` prints and the control socket carries. Times in ms are floats for people only.
"""

from typing import Any

from peer.archive import ArchiveReport
from peer.identity import peer_id
from protocol import signing
from protocol.channel import Channel, ChannelState, Role
from protocol.errors import CODES
from protocol.fields import SignedHead, TokenChance, TokenLogprob
from protocol.messages import Receipt
from protocol.quantization import known
from protocol.recovery import RecoveryReport
from protocol.units import format_credits, milliseconds
from router import events
from router.balance import Balance
from router.ledger import Ledger

Json = dict[str, Any]


def receipt_json(receipt: Receipt) -> Json:
    """A receipt; `receipt_id` names it."""
    profile = receipt.profile
    return {
        "receipt_id": signing.receipt_id(receipt).hex(),
        "request_id": receipt.request_id.hex(),
        "bid_id": receipt.bid_id.hex(),
        "channel": receipt.cid.hex(),
        "lane": receipt.lane,
        "payer": peer_id(receipt.payer),
        "payee": peer_id(receipt.payee),
        "prompt_commitment": receipt.prompt_commitment.hex(),
        "transcript": receipt.transcript.hex(),
        "input_tokens": receipt.input_tokens,
        "output_tokens": receipt.output_tokens,
        "chunks": receipt.chunks,
        "cost_ucr": receipt.price_ucr,
        "started_at_ns": receipt.started_at_ns,
        "ttft_ms": milliseconds(receipt.ttft_ns),
        "duration_ms": milliseconds(receipt.duration_ns),
        "finish_reason": receipt.finish_reason.name.lower(),
        "model_sha256": profile.model_digest.hex(),
        "engine": profile.engine,
        "settings": profile.settings,
    }


def event_json(event: events.AskEvent | events.ChannelSettled) -> Json:
    """An asker's event; `event` is its kind, `at_ms` counts from publication."""
    match event:
        case events.Published():
            return {"event": "published", "request_id": event.request_id.hex()}
        case events.BidSeen():
            return _bid_json(event)
        case events.Quoted():
            bids = [_bid_json(bid) for bid in event.bids]
            return {"event": "quote", "bids": bids, "at_ms": milliseconds(event.at_ns)}
        case events.Awarded():
            return {
                "event": "award",
                "provider": peer_id(event.provider),
                "attempt": event.attempt,
                "channel": event.cid.hex(),
                "opened_channel": event.opened_channel,
                "deposit_ucr": event.deposit_ucr,
                "role": event.role,
                "at_ms": milliseconds(event.at_ns),
            }
        case events.Text():
            return _text_json(event)
        case events.Paid():
            return {
                "event": "voucher",
                "channel": event.cid.hex(),
                "total_ucr": event.total_ucr,
                "at_ms": milliseconds(event.at_ns),
            }
        case events.Retrying():
            return {
                "event": "retry",
                "provider": peer_id(event.provider),
                "code": event.code,
                "at_ms": milliseconds(event.at_ns),
            }
        case events.AuctionedAgain() | events.Continuing():
            return _going_on_json(event)
        case events.Done():
            return _done_json(event)
        case events.Failed():
            return {
                "event": "failed",
                "code": event.code,
                "detail": event.detail,
                "meaning": CODES.get(event.code, ""),
                "paid_ucr": event.paid_ucr,
                "short_ucr": event.short_ucr,
                "at_ms": milliseconds(event.at_ns),
            }
        case events.ChannelSettled():
            return {
                "event": "settled",
                "channel": event.cid.hex(),
                "settled_ucr": event.settled_ucr,
                "refund_ucr": event.refund_ucr,
            }


def _done_json(event: events.Done) -> Json:
    return {
        "event": "done",
        "receipt": receipt_json(event.receipt),
        "parts": list(map(part_json, event.others)),
        "cost_ucr": event.cost_ucr,
        "at_ms": milliseconds(event.at_ns),
    }


def _going_on_json(event: events.AuctionedAgain | events.Continuing) -> Json:
    """Another request takes the place of the one before it."""
    told = {
        "code": event.code or None,
        "request_id": event.request_id.hex(),
        "at_ms": milliseconds(event.at_ns),
    }
    if isinstance(event, events.AuctionedAgain):
        return {"event": "auction", **told}
    return {
        "event": "continuing",
        "provider": peer_id(event.provider),
        **told,
        "output_tokens": event.output_tokens,
        "paid_ucr": event.paid_ucr,
    }


def part_json(part: events.Part) -> Json:
    """A lane that a request cost beside the one of its receipt."""
    return {
        "provider": peer_id(part.provider),
        "channel": part.cid.hex(),
        "lane": part.lane,
        "input_tokens": part.input_tokens,
        "output_tokens": part.output_tokens,
        "cost_ucr": part.cost_ucr,
        "code": part.code or None,
        "receipt_id": part.receipt_id.hex() or None,
    }


def _bid_json(event: events.BidSeen) -> Json:
    return {
        "event": "bid",
        "provider": peer_id(event.provider),
        "input_price_ucr": event.input_price_ucr,
        "output_price_ucr": event.output_price_ucr,
        "ttft_ms": milliseconds(event.ttft_ns),
        "tokens_per_s": event.tokens_per_s_milli / 1000,
        "cost_max_ucr": event.cost_max_ucr,
        "score": event.score,
        "quantization": known(event.quantization),
        "refused": event.code or None,
        "at_ms": milliseconds(event.at_ns),
    }


def _text_json(event: events.Text) -> Json:
    told = {
        "event": "text",
        "text": event.text,
        "output_tokens": event.output_tokens,
        "due_ucr": event.due_ucr,
        "at_ms": milliseconds(event.at_ns),
    }
    if event.logprobs:
        told["logprobs"] = list(map(logprob_json, event.logprobs))
    return told


def logprob_json(token: TokenLogprob) -> Json:
    """A token's scores in the form of OpenAI's chat completions."""
    return {**_chance_json(token.chosen), "top_logprobs": list(map(_chance_json, token.top))}


def _chance_json(chance: TokenChance) -> Json:
    return {
        "token": chance.piece.decode("utf-8", "replace"),
        "logprob": chance.logprob_micro / 1_000_000,
        "bytes": list(chance.piece),
    }


def channel_json(channel: Channel, *, live: bool) -> Json:
    """A channel; without a daemon (`live` False) an open one's state is not known."""
    open_state = channel.state.value if live else "open"
    settled = channel.settled_ucr
    return {
        "channel": channel.cid.hex(),
        "role": channel.role.value,
        "peer": peer_id(channel.peer),
        "state": open_state if channel.is_open else channel.state.value,
        "deposit_ucr": channel.deposit_ucr,
        "window_ucr": channel.terms.window_ucr,
        "voucher_total_ucr": channel.total_ucr,
        "due_ucr": channel.due_ucr if settled is None else settled,
        "settled_ucr": settled,
        "refund_ucr": None if settled is None else channel.deposit_ucr - settled,
        "open_lanes": len(channel.lanes),
        "opened_at_ns": channel.opened_at_ns,
        "expires_at_ns": channel.expires_at_ns(),
    }


def balance_json(balance: Balance) -> Json:
    """The sums over all channels."""
    return {
        "spent_ucr": balance.spent_ucr,
        "locked_ucr": balance.locked_ucr,
        "earned_ucr": balance.earned_ucr,
        "unpaid_ucr": balance.unpaid_ucr,
        "cheques_ucr": balance.cheques_ucr,
        "net_ucr": balance.net_ucr,
    }


def is_payer(channel: Channel) -> bool:
    """Whether we pay on this channel."""
    return channel.role is Role.PAYER


def head_json(head: SignedHead, network: str, owner: bytes) -> Json:
    """A signed head, with all that its signature is over."""
    return {
        "network": network,
        "owner": peer_id(owner),
        "record": head.sequence,
        "head": head.head.hex(),
        "signature": head.signature.hex(),
    }


def archive_json(report: ArchiveReport) -> Json:
    """What was archived."""
    return {
        "segments": list(report.segments),
        "bytes": report.bytes,
        "first_record": report.first_record,
    }


def recovery_json(report: RecoveryReport, ledger: Ledger, elapsed_s: float) -> Json:
    """What a start found: the log, the channels, and what is owed to us and by us.

    `rolled_back_from` is a record that a peer holds our signature of and that our log lost.
    """
    channels = [channel for channel in ledger.channels.values() if channel.is_open]
    states = [channel.state for channel in channels]
    payers = [channel for channel in channels if is_payer(channel)]
    shown = ledger.heads.shown
    return {
        "records": report.records,
        "replayed": report.records - report.replayed_from,
        "from": "snapshot" if report.replayed_from else "start",
        "elapsed_s": round(elapsed_s, 3),
        "torn_bytes": report.torn_bytes,
        "open": len(channels),
        "detached": states.count(ChannelState.DETACHED),
        "frozen": states.count(ChannelState.FROZEN),
        "owed_ucr": ledger.balance().unpaid_ucr,
        "owing_ucr": sum(max(0, channel.due_ucr - channel.total_ucr) for channel in payers),
        "rolled_back_from": None if shown is None else shown.sequence,
    }


def recovery_line(found: Json) -> str:
    """`recovery_json` for a person, on one line."""
    parts = [
        f"log: {found['replayed']} of {found['records']} records replayed from"
        f" {'a snapshot' if found['from'] == 'snapshot' else 'the start'}"
        f" in {found['elapsed_s']:.2f} s"
    ]
    if found["torn_bytes"]:
        parts.append(f"{found['torn_bytes']} bytes of an incomplete write were set aside")
    parts.append(
        f"{found['open']} channels open ({found['detached']} to re-establish,"
        f" {found['frozen']} frozen)"
    )
    owed, owing = format_credits(found["owed_ucr"]), format_credits(found["owing_ucr"])
    parts.append(f"{owed} owed to us, {owing} owing")
    shown = found["rolled_back_from"]
    if shown is not None and shown >= found["records"]:
        parts.append(f"a peer has shown record {shown}: see head.rolled_back")
    return "; ".join(parts)
