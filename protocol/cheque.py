"""Cheques: a user's signed promise to pay one node for one answer, written and checked.

What a user may owe, and which nonces are used, is in `router.cheque_book`. Has no clock.
Rule: protocol/README.md, "Cheques".
"""

from dataclasses import replace

from protocol import crypto, limits, signing
from protocol.crypto import Signer, Verify
from protocol.errors import RemoteError
from protocol.fields import Cheque


def write_cheque(
    signer: Signer, network: str, node: bytes, *, nonce: int, amount_ucr: int, body: bytes = b""
) -> Cheque:
    """A cheque of `signer` over at most `amount_ucr`; `nonce` is now, Unix ns, and never again.

    With the digest of a request's `body` it is good for that one alone.
    """
    blank = Cheque(signer.public_key, node, nonce, amount_ucr, bytes(64), body)
    signature = signer.sign(signing.signed_of_cheque(network, blank))
    return replace(blank, signature=signature)


def check_cheque(network: str, node: bytes, cheque: Cheque, now_ns: int, verify: Verify) -> None:
    """What a cheque alone can say, cheapest first. RemoteError, no offence:
    `cheque.malformed`, `cheque.wrong_node`, `cheque.expired`, `cheque.bad_signature`."""
    if len(cheque.body) not in (0, crypto.DIGEST_BYTES):
        raise RemoteError("cheque.malformed", "a digest has 32 bytes", penalize=False)
    if cheque.node != node:
        raise RemoteError("cheque.wrong_node", penalize=False)
    age_ns = now_ns - cheque.nonce
    if not -limits.CLOCK_SKEW_NS <= age_ns <= limits.CHEQUE_LIFETIME_NS:
        said = f"{abs(age_ns) // 10**9} s {'old' if age_ns > 0 else 'ahead'}"
        raise RemoteError("cheque.expired", said, penalize=False)
    signed = signing.signed_of_cheque(network, cheque)
    if not verify(cheque.user, signed, cheque.signature):
        raise RemoteError("cheque.bad_signature", penalize=False)


def check_body(cheque: Cheque, data: bytes) -> None:
    """Whether a cheque is good for this body. RemoteError, no offence: `cheque.wrong_body`."""
    if cheque.body and cheque.body != crypto.digest(data):
        raise RemoteError("cheque.wrong_body", penalize=False)
