"""Cheques: a user's signed promise to pay one node for one answer, written and checked.

What a user may owe, and which nonces are used, is in `router.cheque_book`. Has no clock.
Rule: protocol/README.md, "Cheques".
"""

from protocol import limits, signing
from protocol.crypto import Signer, Verify
from protocol.errors import RemoteError
from protocol.fields import Cheque


def write_cheque(
    signer: Signer, network: str, node: bytes, *, nonce: int, amount_ucr: int
) -> Cheque:
    """A cheque of `signer` over at most `amount_ucr`; `nonce` is now, Unix ns, and never again."""
    signed = signing.cheque_bytes(network, signer.public_key, node, nonce, amount_ucr)
    return Cheque(signer.public_key, node, nonce, amount_ucr, signer.sign(signed))


def check_cheque(network: str, node: bytes, cheque: Cheque, now_ns: int, verify: Verify) -> None:
    """What a cheque alone can say, cheapest first. RemoteError, no offence:
    `cheque.wrong_node`, `cheque.expired`, `cheque.bad_signature`."""
    if cheque.node != node:
        raise RemoteError("cheque.wrong_node", penalize=False)
    age_ns = now_ns - cheque.nonce
    if not -limits.CLOCK_SKEW_NS <= age_ns <= limits.CHEQUE_LIFETIME_NS:
        said = f"{abs(age_ns) // 10**9} s {'old' if age_ns > 0 else 'ahead'}"
        raise RemoteError("cheque.expired", said, penalize=False)
    signed = signing.cheque_bytes(
        network, cheque.user, cheque.node, cheque.nonce, cheque.amount_ucr
    )
    if not verify(cheque.user, signed, cheque.signature):
        raise RemoteError("cheque.bad_signature", penalize=False)
