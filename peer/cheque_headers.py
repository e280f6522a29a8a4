"""A cheque as the headers of an HTTP request, written by clients and read by the gateway.

Keys are peer ids, the amount is in ucr, the signature in hex. Rule: protocol/README.md,
"Cheques".
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from peer.identity import peer_id, public_key
from protocol.errors import ConfigError, RemoteError
from protocol.fields import Cheque

USER: Final = "X-Peerd-User"
NODE: Final = "X-Peerd-Node"
NONCE: Final = "X-Peerd-Nonce"
AMOUNT: Final = "X-Peerd-Amount"
SIGNATURE: Final = "X-Peerd-Signature"
NAMES: Final = (USER, NODE, NONCE, AMOUNT, SIGNATURE)
BODY: Final = "X-Peerd-Body"  # of a cheque that is bound to one

# A signature in hex; the rest is shorter.
_CHARS_MAX: Final = 128


def write_headers(cheque: Cheque) -> dict[str, str]:
    """The five headers, and a sixth where the cheque is bound to a body."""
    bound = {BODY: cheque.body.hex()} if cheque.body else {}
    return {
        USER: peer_id(cheque.user),
        NODE: peer_id(cheque.node),
        NONCE: str(cheque.nonce),
        AMOUNT: str(cheque.amount_ucr),
        SIGNATURE: cheque.signature.hex(),
        **bound,
    }


def has_cheque(names: Mapping[str, str]) -> bool:
    """Whether headers, by their names in lower case, mean to pay by cheque."""
    return any(name.lower() in names for name in NAMES)


def read_headers(headers: Mapping[str, str]) -> Cheque:
    """The cheque of headers, whose names are in lower case. RemoteError `cheque.malformed`."""
    said: dict[str, str] = {}
    for name in (*NAMES, BODY):
        text = headers.get(name.lower(), "").strip()
        if name == BODY and BODY.lower() not in headers:
            continue
        if not text or len(text) > _CHARS_MAX or not text.isascii():
            raise RemoteError("cheque.malformed", name, penalize=False)
        said[name] = text
    try:
        return msgspec.convert(
            {
                "user": public_key(said[USER]),
                "node": public_key(said[NODE]),
                "nonce": _number(said[NONCE]),
                "amount_ucr": _number(said[AMOUNT]),
                "signature": bytes.fromhex(said[SIGNATURE]),
                "body": bytes.fromhex(said.get(BODY, "")),
            },
            Cheque,
        )
    except (ConfigError, ValueError, msgspec.ValidationError) as error:
        detail = error.detail if isinstance(error, ConfigError) else str(error)
        raise RemoteError("cheque.malformed", detail[:120], penalize=False) from error


def _number(text: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise ValueError(f"{text[:20]!r} is no whole number")
    return int(text)
