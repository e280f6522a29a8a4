"""Paying a node by cheque, from any HTTP client: headers out, receipts checked.

Needs a key and no node. Rule: README.md, "Without a node".
"""

import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx

from peer.cheque_headers import write_headers
from peer.config import credits_of
from peer.identity import load_key, public_key
from protocol import signing
from protocol.cheque import write_cheque
from protocol.crypto import digest, verify
from protocol.errors import RemoteError
from protocol.messages import Receipt
from protocol.wire import decode


def receipt_path(nonce: int) -> str:
    """Where a node says what a cheque was charged for."""
    return f"/v1/cheques/{nonce}"


class Cheques:
    """Writes cheques to one node with the key in `directory`, which `peerd init` made.

    ConfigError: `config.no_identity`, `config.bad_value`.
    """

    def __init__(self, node: str, directory: str | Path, *, network: str = "main") -> None:
        self._signer = load_key(Path(directory).expanduser())
        self._node = public_key(node)
        self._network = network
        self._nonce = 0

    def headers(self, max_price: str, body: bytes | None = None) -> dict[str, str]:
        """Headers for one call, which costs at most so many credits: the node can't show more.

        For `extra_headers` of OpenAI's client. A call that is made again needs new ones. With the
        `body` that will be sent, nobody who reads them can spend them on another.
        """
        amount_ucr = credits_of("max_price", max_price)
        self._nonce = max(self._nonce + 1, time.time_ns())
        cheque = write_cheque(
            self._signer,
            self._network,
            self._node,
            nonce=self._nonce,
            amount_ucr=amount_ucr,
            body=digest(body) if body is not None else b"",
        )
        return write_headers(cheque)

    def receipt_headers(self, nonce: int) -> dict[str, str]:
        """Headers of GET `receipt_path(nonce)`, which tells again what the call with this
        X-Peerd-Nonce was charged for: for `check_receipt`. They pay for nothing."""
        return self.headers("0", receipt_path(nonce).encode())

    def auth(self, max_price: str) -> httpx.Auth:
        """Has an httpx client pay each of its calls, bound to its body; those that are tried again
        too, so it is max_price for every try."""
        return _EachCall(self, max_price)

    def check_receipt(self, report: Mapping[str, Any]) -> int:
        """What a call cost, in ucr, by the node's signed receipt: an item of the answer's
        `peerd`. RemoteError `receipt.mismatch`, `receipt.bad_signature`."""
        try:
            data, signature = (bytes.fromhex(report[name]) for name in ("receipt", "signature"))
            receipt = decode(data)
        except (KeyError, TypeError, ValueError, RemoteError) as error:
            raise RemoteError("receipt.mismatch", "no receipt", penalize=False) from error
        ours = (self._signer.public_key, self._node)
        if not isinstance(receipt, Receipt) or (receipt.payer, receipt.payee) != ours:
            raise RemoteError("receipt.mismatch", "another's", penalize=False)
        signed = signing.receipt_bytes(self._network, digest(data))
        if not verify(self._node, signed, signature):
            raise RemoteError("receipt.bad_signature", penalize=False)
        return receipt.price_ucr


class _EachCall(httpx.Auth):
    requires_request_body = True

    def __init__(self, cheques: Cheques, max_price: str) -> None:
        self._cheques = cheques
        self._max_price = max_price

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """A cheque for this request's body."""
        request.headers.update(self._cheques.headers(self._max_price, request.content))
        yield request
