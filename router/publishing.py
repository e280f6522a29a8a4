"""An ask as a signed request: all that bidders are told, nothing of the prompt; and whether the
day has money for it. Sans-IO."""

from typing import NamedTuple

from protocol import crypto, limits, wire
from protocol.envelope import Signed, sign_envelope
from protocol.errors import LocalError
from protocol.messages import Request
from protocol.records import RequestKeyed
from protocol.transcript import prompt_commitment
from protocol.units import format_credits
from router.actions import Ask
from router.context import Context
from router.quoting import input_tokens_bucket


class Published(NamedTuple):
    """A request, and what opens its bids and its prompt's commitment."""

    signed: Signed
    ephemeral_seed: bytes
    prompt_key: bytes


def published(context: Context, ask: Ask) -> Published:
    """The request of an ask, logged under its key if it has one.

    LocalError `request.invalid`, `wire.unencodable`.
    """
    ephemeral_seed, prompt_key = context.entropy(32), context.entropy(32)
    # The award carries both, and has no way back once it is decided.
    parts = (ask.prompt, ask.parameters)
    award_bytes = sum(len(wire.encode_fields(part)) for part in parts)
    if award_bytes > limits.PROMPT_BYTES_MAX:
        detail = f"prompt and parameters of {award_bytes} bytes"
        raise LocalError("wire.unencodable", detail)
    signed = sign_envelope(
        context.signer,
        context.network,
        Request(
            model=ask.model,
            inference_type=ask.prompt.inference_type,
            input_tokens_max=input_tokens_bucket(ask.prompt),
            output_tokens_max=ask.parameters.output_tokens_max,
            price_max_ucr=ask.price_max_ucr,
            deadline_ns=context.now_ns + ask.timeout_ns,
            bid_window_ns=ask.bid_window_ns,
            strategy=ask.strategy,
            filters=ask.filters,
            redundancy=1,
            ephemeral_key=crypto.box_public_key(ephemeral_seed),
            addresses=context.addresses,
            prompt_commitment=prompt_commitment(ask.prompt, prompt_key),
        ),
        context.now_ns,
    )
    if ask.key is not None:
        context.append(RequestKeyed(*ask.key, signed.digest, context.now_ns))
    return Published(signed, ephemeral_seed, prompt_key)


def check_day(context: Context, ask: Ask, most_ucr: int, running_ucr: int) -> None:
    """Whether an ask at its worst fits into what a UTC day may cost, beside what runs at its
    worst; 0 is no cap, and a quote costs nothing. LocalError `request.day_limit`."""
    if not most_ucr or ask.choice.quote:
        return
    spent_ucr = context.ledger.reputation.spent_ucr(context.now_ns)
    over_ucr = spent_ucr + running_ucr + ask.price_max_ucr - most_ucr
    if over_ucr > 0:
        over, most = format_credits(over_ucr), format_credits(most_ucr)
        detail = f"{over} credits over {most}, at the request's cap"
        raise LocalError("request.day_limit", detail, short_ucr=over_ucr)
