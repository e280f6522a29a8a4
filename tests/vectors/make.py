"""Adds golden vectors that are missing: `python -m tests.vectors.make`.

It never edits one: where a vector that exists would come out otherwise, nothing is written and
the exit status is 1, because peers and logs out there hold the old bytes. Rule:
protocol/README.md, "Golden vectors".
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from protocol import crypto, records, signing, transcript, wire
from protocol.bundle import encode_bundle
from protocol.envelope import sign_envelope
from protocol.fields import LaneClaim
from protocol.messages import NUMBERS
from tests.protocol.bundles import whole
from tests.vectors import samples as s
from tests.vectors.plain import to_plain

PATH: Final = Path(__file__).parent / "messages.json"
ABOUT: Final = (
    "Golden vectors of protocol/README.md. Bytes in inputs are {'bin': hex}; results are hex."
    " Vectors are added, never edited."
)
THINGS: Final = (
    "network",
    "envelope",
    "transcript",
    "lanes",
    "voucher",
    "open",
    "award",
    "accept",
    "chunk",
    "receipt",
    "receipt ack",
    "close",
    "close ack",
    "top up",
    "close notice",
    "top up ack",
    "head",
    "order",
    "deposit",
    "settlement",
    "cheque",
    "bound cheque",
)
PAYER: Final = crypto.Signer(s.PAYER_SEED)
PAYEE: Final = crypto.Signer(s.PAYEE_SEED)

Entry = dict[str, Any]
Section = dict[str, Entry]


def _keys() -> Section:
    signers = {"payer": PAYER, "payee": PAYEE}
    found: Section = {
        name: {"seed": signer.seed.hex(), "public_key": signer.public_key.hex()}
        for name, signer in signers.items()
    }
    public_key = crypto.box_public_key(s.BOX_SEED)
    found["box"] = {"seed": s.BOX_SEED.hex(), "public_key": public_key.hex()}
    return found


def _domain_tags() -> Section:
    return {
        f"{network}/{thing}": {
            "network": network,
            "thing": thing,
            "hex": crypto.domain_tag(network, thing).hex(),
        }
        for network in (s.NETWORK, "peerd")
        for thing in THINGS
    }


def _messages() -> Section:
    return {
        name: {
            "message": type(value).__name__,
            "number": NUMBERS[type(value)],
            "fields": to_plain(value),
            "hex": wire.encode(value).hex(),
        }
        for name, value in s.MESSAGES.items()
    }


def _records() -> Section:
    found: Section = {}
    for name, value in s.RECORDS.items():
        number, payload = records.encode_record(value)
        found[name] = {
            "record": type(value).__name__,
            "number": number,
            "fields": to_plain(value),
            "hex": payload.hex(),
        }
    return found


# Function of protocol.signing -> who signs, and its arguments after the network.
_SIGNED: Final[dict[str, tuple[str, Entry]]] = {
    "voucher_bytes": ("payer", {"cid": s.CID, "total_ucr": 500_000, "lanes": s.CLAIMS}),
    "open_bytes": (
        "payer",
        {"cid": s.CID, "deposit_ucr": 2_000_000, "opened_at_ns": s.NOW_NS},
    ),
    "award_bytes": (
        "payer",
        {
            "request_id": s.REQUEST_ID,
            "bid_id": s.BID_ID,
            "cid": s.CID,
            "lane": 4,
            "commitment": s.fill(0x60),
            "parameters": s.PARAMETERS,
        },
    ),
    "accept_bytes": (
        "payee",
        {"cid": s.CID, "deposit_ucr": 2_000_000, "lane": 4, "bid_id": s.BID_ID},
    ),
    "chunk_bytes": (
        "payee",
        {"cid": s.CID, "lane": 4, "sequence": 3, "transcript": s.fill(0x70)},
    ),
    "close_notice_bytes": (
        "payee",
        {"cid": s.CID, "total_ucr": 500_000, "deadline_ns": s.NOW_NS},
    ),
    "top_up_bytes": ("payer", {"cid": s.CID, "deposit_ucr": 3_000_000}),
    "top_up_ack_bytes": ("payee", {"cid": s.CID, "deposit_ucr": 3_000_000}),
    "receipt_bytes": ("payee", {"identity": s.fill(0xD0)}),
    "receipt_ack_bytes": ("payer", {"identity": s.fill(0xD0)}),
    "close_bytes": ("payer", {"cid": s.CID, "total_ucr": 462_500}),
    "close_ack_bytes": ("payee", {"cid": s.CID, "total_ucr": 462_500}),
    "head_bytes": ("payee", {"owner": s.fill(0x02), "sequence": 4_711, "head": s.fill(0x30)}),
    "order_bytes": ("payer", {"cid": s.CID, "deposit_ucr": 2_000_000, "sequence": 3}),
    "deposit_bytes": ("payee", {"cid": s.CID, "deposit_ucr": 2_000_000, "sequence": 3}),
    "cheque_bytes": (
        "payer",
        {
            "user": PAYER.public_key,
            "node": PAYEE.public_key,
            "nonce": s.NOW_NS,
            "amount_ucr": 52_500,
        },
    ),
    "bound_cheque_bytes": (
        "payer",
        {
            "user": PAYER.public_key,
            "node": PAYEE.public_key,
            "nonce": s.NOW_NS,
            "amount_ucr": 52_500,
            "body": s.fill(0xA0),
        },
    ),
    "settlement_bytes": ("payee", {"cid": s.CID, "settled_ucr": 462_500}),
}


def _signatures() -> Section:
    found: Section = {}
    for name, (who, inputs) in _SIGNED.items():
        signed = getattr(signing, name)(s.NETWORK, **inputs)
        signer = PAYER if who == "payer" else PAYEE
        found[name] = {
            "signer": who,
            "inputs": {key: to_plain(value) for key, value in inputs.items()},
            "hex": signed.hex(),
            "signature": signer.sign(signed).hex(),
        }
    return found


def _digest(function: str, inputs: Entry, result: bytes) -> Entry:
    plain = {key: to_plain(value) for key, value in inputs.items()}
    return {"function": function, "inputs": plain, "hex": result.hex()}


def _digests() -> Section:
    channel: Entry = {
        "network": s.NETWORK,
        "payer": PAYER.public_key,
        "payee": PAYEE.public_key,
        "payer_salt": s.fill(0x40, 16),
        "payee_salt": s.fill(0x50, 16),
        "terms": s.TERMS,
    }
    cheque: Entry = {"network": s.NETWORK, "cheque": s.CHEQUE}
    bound: Entry = {"network": s.NETWORK, "cheque": s.BOUND_CHEQUE}
    lanes: dict[str, tuple[LaneClaim, ...]] = {"lanes_root": s.CLAIMS, "lanes_root.none": ()}
    found: Section = {
        "channel_id": _digest("channel_id", channel, signing.channel_id(**channel)),
        "receipt_id": _digest("receipt_id", {"receipt": s.RECEIPT}, signing.receipt_id(s.RECEIPT)),
        "cheque_id": _digest("cheque_id", cheque, signing.cheque_id(**cheque)),
        "cheque_id.bound": _digest("cheque_id", bound, signing.cheque_id(**bound)),
    }
    for name, claims in lanes.items():
        inputs: Entry = {"network": s.NETWORK, "lanes": claims}
        found[name] = _digest("lanes_root", inputs, signing.lanes_root(**inputs))
    prompt: Entry = {"prompt": s.PROMPT, "key": s.fill(0xB0)}
    commitment = transcript.prompt_commitment(**prompt)
    found["prompt_commitment"] = _digest("prompt_commitment", prompt, commitment)
    start: Entry = {
        "network": s.NETWORK,
        "request_id": s.REQUEST_ID,
        "bid_id": s.BID_ID,
        "commitment": commitment,
    }
    previous = transcript.transcript_start(**start)
    found["transcript_start"] = _digest("transcript_start", start, previous)
    for sequence, text in enumerate(("A voucher", " is a promise ✓", ""), start=1):
        chunk: Entry = {
            "previous": previous,
            "sequence": sequence,
            "text": text,
            "input_tokens": 1_500,
            "output_tokens": 4 * sequence,
            "due_ucr": 22_500 + 240 * sequence,
        }
        previous = transcript.transcript_next(**chunk)
        found[f"transcript_next.{sequence}"] = _digest("transcript_next", chunk, previous)
    scored = chunk | {"previous": previous, "sequence": 4, "logprobs": s.LOGPROBS}
    scores = transcript.transcript_next(**scored)
    found["transcript_next.logprobs"] = _digest("transcript_next", scored, scores)
    return found


def _envelopes() -> Section:
    contents = {"Request": ("payer", s.REQUEST), "Bid": ("payee", s.BID)}
    contents["SealedBid"] = ("payee", s.MESSAGES["SealedBid"])
    contents["PeerRecord"] = ("payee", s.MESSAGES["PeerRecord"])
    found: Section = {}
    for name, (who, message) in contents.items():
        signer = PAYER if who == "payer" else PAYEE
        signed = sign_envelope(signer, s.NETWORK, message, s.NOW_NS)
        found[name] = {
            "signer": who,
            "message": name,
            "sent_at_ns": s.NOW_NS,
            "hex": signed.data.hex(),
            "digest": signed.digest.hex(),
        }
    return found


def _sealed_boxes() -> Section:
    recipient = crypto.box_public_key(s.BOX_SEED)
    bid = sign_envelope(PAYEE, s.NETWORK, s.BID, s.NOW_NS).data
    return {
        name: {
            "recipient": "box",
            "ephemeral_seed": seed.hex(),
            "plaintext": plaintext.hex(),
            "hex": crypto.seal(recipient, plaintext, seed).hex(),
        }
        for name, plaintext, seed in (
            ("empty", b"", s.fill(0x11)),
            ("bid", bid, s.fill(0x22)),
        )
    }


def _bundles() -> Section:
    bundle = whole()
    return {"whole": {"fields": to_plain(bundle), "hex": encode_bundle(bundle).hex()}}


def sections() -> dict[str, Section]:
    """All vectors as the code gives them now."""
    return {
        "keys": _keys(),
        "domain_tags": _domain_tags(),
        "messages": _messages(),
        "records": _records(),
        "signatures": _signatures(),
        "digests": _digests(),
        "envelopes": _envelopes(),
        "sealed_boxes": _sealed_boxes(),
        "bundles": _bundles(),
    }


def add(golden: dict[str, Any], found: dict[str, Section]) -> tuple[list[str], list[str]]:
    """Put what is missing of `found` into `golden`; the names added, and those that differ."""
    added: list[str] = []
    differing: list[str] = []
    for section, entries in found.items():
        held = golden.setdefault(section, {})
        for name, entry in entries.items():
            if name not in held:
                held[name] = entry
                added.append(f"{section}.{name}")
            elif held[name] != entry:
                differing.append(f"{section}.{name}")
    return added, differing


def main(path: Path = PATH) -> int:
    """Add to the file at `path`; the exit status."""
    golden: dict[str, Any] = {"about": ABOUT, "network": s.NETWORK}
    if path.exists():
        golden = json.loads(path.read_text())
    added, differing = add(golden, sections())
    if differing:
        print("these vectors are not what the code gives; nothing was written:", *differing)
        return 1
    if added:
        path.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(added)} vectors added")
    return 0


if __name__ == "__main__":
    sys.exit(main())
