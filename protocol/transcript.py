"""The running hash over a job's chunks, and the keyed commitment to its prompt.

Both sides compute them; a chunk's signature covers the hash, so one signed chunk proves all
the text before it. Rule: protocol/README.md, "Transcript".
"""

from protocol import crypto, wire
from protocol.fields import Prompt, TokenLogprob


def prompt_commitment(prompt: Prompt, key: bytes) -> bytes:
    """BLAKE2b-256 of the encoded prompt under a 32-byte key: hides even a short prompt."""
    return crypto.digest(wire.encode_fields(prompt), key=key)


def transcript_start(network: str, request_id: bytes, bid_id: bytes, commitment: bytes) -> bytes:
    """The hash before the first chunk: binds the stream to its request, bid and prompt."""
    tag = crypto.domain_tag(network, "transcript")
    return crypto.digest(tag, request_id, bid_id, commitment)


def transcript_next(
    previous: bytes,
    sequence: int,
    text: str,
    input_tokens: int,
    output_tokens: int,
    due_ucr: int,
    logprobs: tuple[TokenLogprob, ...] = (),
) -> bytes:
    """The hash after chunk `sequence` with its running counts, price due and logprobs."""
    encoded = text.encode()
    scores = (crypto.digest(*map(wire.encode_fields, logprobs)),) if logprobs else ()
    return crypto.digest(
        previous,
        sequence.to_bytes(4, "big"),
        input_tokens.to_bytes(4, "big"),
        output_tokens.to_bytes(4, "big"),
        due_ucr.to_bytes(8, "big"),
        len(encoded).to_bytes(4, "big"),
        encoded,
        *scores,
    )
